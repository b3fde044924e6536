//! Every method of AMQP 0-9-1 and of RabbitMQ's extensions, both directions, as one table.
//!
//! ```text
//! payload of a method frame: class u16, method u16, fields
//! fields: u8, u16, u32, u64; short and long strings; tables; consecutive bits share octets from bit 0 on
//! ```

use base::{Put, Reader};
use model::Arguments;

use super::{Malformed, frame, table};

/// Reads the fields of one method.
struct Fields<'a> {
    reader: Reader<'a>,
    /// The octet that bits are taken from, and the next bit.
    bits: (u8, u8),
    depth: u8,
}

/// Writes the fields of one method.
struct Filling<'o> {
    out: &'o mut Vec<u8>,
    /// The next bit of the last octet; 0: the next bit begins an octet.
    bit: u8,
}

trait Field<'a>: Sized {
    fn take(fields: &mut Fields<'a>) -> Result<Self, Malformed>;
    fn fill(&self, filling: &mut Filling<'_>);
    #[cfg(test)]
    fn any(prng: &mut base::Prng) -> Self;
}

impl Filling<'_> {
    fn whole(&mut self) -> &mut Vec<u8> {
        self.bit = 0;
        self.out
    }
}

impl<'a> Fields<'a> {
    #[inline]
    fn whole(&mut self) -> &mut Reader<'a> {
        self.bits = (0, 0);
        &mut self.reader
    }
}

macro_rules! number_field {
    ($($t:ty, $take:ident;)*) => {$(
        impl Field<'_> for $t {
            #[inline]
            fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
                Ok(fields.whole().$take()?)
            }
            fn fill(&self, filling: &mut Filling<'_>) {
                filling.whole().put(&self.to_be_bytes());
            }
            #[cfg(test)]
            fn any(prng: &mut base::Prng) -> Self {
                prng.draw() as $t
            }
        }
    )*};
}

number_field! { u8, u8; u16, u16_be; u32, u32_be; u64, u64_be; }

impl Field<'_> for bool {
    #[inline]
    fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        if fields.bits.1 & 7 == 0 {
            fields.bits = (fields.reader.u8()?, 0);
        }
        let set = fields.bits.0 >> fields.bits.1 & 1 == 1;
        fields.bits.1 += 1;
        Ok(set)
    }

    fn fill(&self, filling: &mut Filling<'_>) {
        if filling.bit == 0 {
            filling.out.put_u8(0);
        }
        if let Some(octet) = filling.out.last_mut() {
            *octet |= u8::from(*self) << filling.bit;
        }
        filling.bit = (filling.bit + 1) & 7;
    }

    #[cfg(test)]
    fn any(prng: &mut base::Prng) -> Self {
        prng.chance(1, 2)
    }
}

impl<'a> Field<'a> for &'a str {
    #[inline]
    fn take(fields: &mut Fields<'a>) -> Result<Self, Malformed> {
        table::short_text(fields.whole())
    }
    fn fill(&self, filling: &mut Filling<'_>) {
        table::put_short(filling.whole(), self.as_bytes());
    }
    #[cfg(test)]
    fn any(prng: &mut base::Prng) -> Self {
        ["", "a", "µ-text"][prng.below(3) as usize]
    }
}

impl<'a> Field<'a> for &'a [u8] {
    fn take(fields: &mut Fields<'a>) -> Result<Self, Malformed> {
        table::long(fields.whole())
    }
    fn fill(&self, filling: &mut Filling<'_>) {
        table::put_long(filling.whole(), self);
    }
    #[cfg(test)]
    fn any(prng: &mut base::Prng) -> Self {
        [&b""[..], b"a", b"a longer one"][prng.below(3) as usize]
    }
}

impl Field<'_> for Arguments {
    fn take(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let depth = fields.depth;
        table::decode_fields(table::long(fields.whole())?, depth)
    }
    fn fill(&self, filling: &mut Filling<'_>) {
        table::encode(self, filling.whole());
    }
    #[cfg(test)]
    fn any(prng: &mut base::Prng) -> Self {
        table::tests::random(prng, 2)
    }
}

macro_rules! methods {
    ($($class:literal/$id:literal $name:ident $([$reserved:ty])? { $($field:ident: $t:ty),* })*) => {
        /// A method and its fields; `[…]` in the table is a reserved field, skipped and written as nothing.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)] // The names are the specification's.
        pub enum Method<'a> { $($name { $($field: $t),* },)* }

        impl<'a> Method<'a> {
            /// Class and method number.
            pub fn ids(&self) -> (u16, u16) {
                match self { $(Method::$name { .. } => ($class, $id),)* }
            }

            /// Reads the payload of a method frame; `depth` bounds how deep its tables nest.
            pub fn decode(payload: &'a [u8], depth: u8) -> Result<Method<'a>, Malformed> {
                let mut reader = Reader::new(payload);
                let ids = (reader.u16_be()?, reader.u16_be()?);
                #[allow(unused_mut)]
                let mut fields = Fields { reader, bits: (0, 0), depth };
                let method = match ids {
                    $(($class, $id) => {
                        $(let _ = <$reserved as Field<'a>>::take(&mut fields)?;)?
                        Method::$name { $($field: <$t as Field<'a>>::take(&mut fields)?),* }
                    })*
                    (class, id) => return Err(Malformed::Unknown(class, id)),
                };
                match fields.reader.is_empty() {
                    true => Ok(method),
                    false => Err(Malformed::Syntax("bytes follow the last field")),
                }
            }

            /// Appends the payload of a method frame.
            pub fn encode(&self, out: &mut Vec<u8>) {
                let (class, id) = self.ids();
                out.put_u16_be(class);
                out.put_u16_be(id);
                let filling = &mut Filling { out, bit: 0 };
                match self {
                    $(Method::$name { $($field),* } => {
                        $(<$reserved as Default>::default().fill(filling);)?
                        $($field.fill(filling);)*
                    })*
                }
            }
        }

        #[cfg(test)]
        impl Method<'static> {
            /// One of each method, with random fields.
            pub(crate) fn one_of_each(prng: &mut base::Prng) -> Vec<Method<'static>> {
                vec![$(Method::$name { $($field: Field::any(prng)),* }),*]
            }
        }
    };
}

impl Method<'_> {
    /// Appends the whole frame of the method.
    pub fn put(&self, channel: u16, out: &mut Vec<u8>) {
        frame::put_frame_with(out, frame::METHOD, channel, |out| self.encode(out));
    }

    /// Whether content frames follow.
    pub fn has_content(&self) -> bool {
        matches!(
            self,
            Method::BasicPublish { .. }
                | Method::BasicReturn { .. }
                | Method::BasicDeliver { .. }
                | Method::BasicGetOk { .. }
        )
    }
}

methods! {
    10/10 ConnectionStart {
        version_major: u8, version_minor: u8, server_properties: Arguments, mechanisms: &'a [u8], locales: &'a [u8]
    }
    10/11 ConnectionStartOk {
        client_properties: Arguments, mechanism: &'a str, response: &'a [u8], locale: &'a str
    }
    10/20 ConnectionSecure { challenge: &'a [u8] }
    10/21 ConnectionSecureOk { response: &'a [u8] }
    10/30 ConnectionTune { channel_max: u16, frame_max: u32, heartbeat: u16 }
    10/31 ConnectionTuneOk { channel_max: u16, frame_max: u32, heartbeat: u16 }
    10/40 ConnectionOpen { virtual_host: &'a str, capabilities: &'a str, insist: bool }
    10/41 ConnectionOpenOk [&'a str] {}
    10/50 ConnectionClose { reply_code: u16, reply_text: &'a str, class: u16, method: u16 }
    10/51 ConnectionCloseOk {}
    10/60 ConnectionBlocked { reason: &'a str }
    10/61 ConnectionUnblocked {}
    10/70 ConnectionUpdateSecret { new_secret: &'a [u8], reason: &'a str }
    10/71 ConnectionUpdateSecretOk {}

    20/10 ChannelOpen [&'a str] {}
    20/11 ChannelOpenOk [&'a [u8]] {}
    20/20 ChannelFlow { active: bool }
    20/21 ChannelFlowOk { active: bool }
    20/40 ChannelClose { reply_code: u16, reply_text: &'a str, class: u16, method: u16 }
    20/41 ChannelCloseOk {}

    30/10 AccessRequest { realm: &'a str, exclusive: bool, passive: bool, active: bool, write: bool, read: bool }
    30/11 AccessRequestOk { ticket: u16 }

    40/10 ExchangeDeclare [u16] {
        exchange: &'a str, kind: &'a str, passive: bool, durable: bool, auto_delete: bool, internal: bool,
        nowait: bool, arguments: Arguments
    }
    40/11 ExchangeDeclareOk {}
    40/20 ExchangeDelete [u16] { exchange: &'a str, if_unused: bool, nowait: bool }
    40/21 ExchangeDeleteOk {}
    40/30 ExchangeBind [u16] {
        destination: &'a str, source: &'a str, routing_key: &'a str, nowait: bool, arguments: Arguments
    }
    40/31 ExchangeBindOk {}
    40/40 ExchangeUnbind [u16] {
        destination: &'a str, source: &'a str, routing_key: &'a str, nowait: bool, arguments: Arguments
    }
    40/51 ExchangeUnbindOk {}

    50/10 QueueDeclare [u16] {
        queue: &'a str, passive: bool, durable: bool, exclusive: bool, auto_delete: bool, nowait: bool,
        arguments: Arguments
    }
    50/11 QueueDeclareOk { queue: &'a str, message_count: u32, consumer_count: u32 }
    50/20 QueueBind [u16] {
        queue: &'a str, exchange: &'a str, routing_key: &'a str, nowait: bool, arguments: Arguments
    }
    50/21 QueueBindOk {}
    50/30 QueuePurge [u16] { queue: &'a str, nowait: bool }
    50/31 QueuePurgeOk { message_count: u32 }
    50/40 QueueDelete [u16] { queue: &'a str, if_unused: bool, if_empty: bool, nowait: bool }
    50/41 QueueDeleteOk { message_count: u32 }
    50/50 QueueUnbind [u16] { queue: &'a str, exchange: &'a str, routing_key: &'a str, arguments: Arguments }
    50/51 QueueUnbindOk {}

    60/10 BasicQos { prefetch_size: u32, prefetch_count: u16, global: bool }
    60/11 BasicQosOk {}
    60/20 BasicConsume [u16] {
        queue: &'a str, consumer_tag: &'a str, no_local: bool, no_ack: bool, exclusive: bool, nowait: bool,
        arguments: Arguments
    }
    60/21 BasicConsumeOk { consumer_tag: &'a str }
    60/30 BasicCancel { consumer_tag: &'a str, nowait: bool }
    60/31 BasicCancelOk { consumer_tag: &'a str }
    60/40 BasicPublish [u16] { exchange: &'a str, routing_key: &'a str, mandatory: bool, immediate: bool }
    60/50 BasicReturn { reply_code: u16, reply_text: &'a str, exchange: &'a str, routing_key: &'a str }
    60/60 BasicDeliver {
        consumer_tag: &'a str, delivery_tag: u64, redelivered: bool, exchange: &'a str, routing_key: &'a str
    }
    60/70 BasicGet [u16] { queue: &'a str, no_ack: bool }
    60/71 BasicGetOk {
        delivery_tag: u64, redelivered: bool, exchange: &'a str, routing_key: &'a str, message_count: u32
    }
    60/72 BasicGetEmpty [&'a str] {}
    60/80 BasicAck { delivery_tag: u64, multiple: bool }
    60/90 BasicReject { delivery_tag: u64, requeue: bool }
    60/100 BasicRecoverAsync { requeue: bool }
    60/110 BasicRecover { requeue: bool }
    60/111 BasicRecoverOk {}
    60/120 BasicNack { delivery_tag: u64, multiple: bool, requeue: bool }

    85/10 ConfirmSelect { nowait: bool }
    85/11 ConfirmSelectOk {}

    90/10 TxSelect {}
    90/11 TxSelectOk {}
    90/20 TxCommit {}
    90/21 TxCommitOk {}
    90/30 TxRollback {}
    90/31 TxRollbackOk {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::Prng;

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        Method::BasicPublish { exchange: "ex", routing_key: "k", mandatory: true, immediate: false }
            .put(1, &mut bytes);
        #[rustfmt::skip]
        let publish =
            [1, 0, 1, 0, 0, 0, 12, 0, 60, 0, 40, 0, 0, 2, b'e', b'x', 1, b'k', 1, 0xce];
        assert_eq!(bytes, publish);
        bytes.clear();
        Method::BasicNack { delivery_tag: 258, multiple: true, requeue: true }.encode(&mut bytes);
        assert_eq!(bytes, [0, 60, 0, 120, 0, 0, 0, 0, 0, 0, 1, 2, 3]);
        bytes.clear();
        Method::ExchangeUnbindOk {}.encode(&mut bytes);
        assert_eq!(bytes, [0, 40, 0, 51]);
        bytes.clear();
        Method::ConnectionTune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }.encode(&mut bytes);
        assert_eq!(bytes, [0, 10, 0, 30, 7, 255, 0, 2, 0, 0, 0, 60]);
    }

    #[test]
    fn every_method_comes_back_and_no_cut_of_one_decodes() {
        let mut prng = Prng::new(3);
        for _ in 0..50 {
            let methods = Method::one_of_each(&mut prng);
            assert_eq!(methods.len(), 66);
            for method in methods {
                let mut payload = Vec::new();
                method.encode(&mut payload);
                for cut in 0..payload.len() {
                    assert!(Method::decode(&payload[..cut], 4).is_err(), "{method:?} cut at {cut}");
                }
                assert_eq!(Method::decode(&payload, 4), Ok(method));
            }
        }
    }

    #[test]
    fn wrong_bytes_are_told_apart() {
        assert_eq!(Method::decode(&[0, 60, 0, 41], 1), Err(Malformed::Unknown(60, 41)));
        assert_eq!(Method::decode(&[0, 60, 0, 30, 1, 0xff, 0], 1), Err(Malformed::Text));
        assert!(matches!(Method::decode(&[0, 90, 0, 10, 0], 1), Err(Malformed::Syntax(_))));
        assert!(matches!(Method::decode(&[0, 60, 0, 80, 0], 1), Err(Malformed::Syntax(_))));
    }
}
