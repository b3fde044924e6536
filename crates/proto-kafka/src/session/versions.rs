//! ApiVersions: what is understood, told in a form that any client can read.
//!
//! In: the request, in a version that may be unknown. Out: the ranges. Never: what is not in the table.

use base::SendBuffer;

use super::Session;
use super::reply::{Asked, Reply};
use crate::map::{self, Code};
use crate::wire::{APIS, Encoder, Header, Malformed, api};

pub(super) fn api_versions(asked: &mut Asked<'_>) -> Result<Reply, Malformed> {
    let version = asked.version;
    if version >= 3 {
        asked.fields.string()?;
        asked.fields.string()?;
        asked.fields.tags()?;
    }
    Ok(Reply::now(move |fields| put_versions(version, map::NONE, fields)))
}

fn put_versions(version: i16, code: Code, fields: &mut Encoder<'_>) {
    fields.i16(code);
    fields.structs(APIS, |fields, api| {
        fields.i16(api.key);
        fields.i16(api.min);
        fields.i16(api.max);
    });
    if version >= 1 {
        fields.i32(0);
    }
    fields.tags();
}

impl Session {
    /// A request, or a version of one, that is not in the table. Only who asks for the versions themselves is told
    /// them (in the oldest form); with anybody else there is no common language.
    pub(super) fn not_understood(
        &mut self,
        header: Header<'_>,
        out: &mut SendBuffer,
    ) -> Result<(), Malformed> {
        if header.key != api::API_VERSIONS {
            return Err(Malformed);
        }
        let api = api::api_of(header.key).expect("the request for versions is in the table");
        let reply = Reply::now(|fields| put_versions(0, map::UNSUPPORTED_VERSION, fields));
        // In line as version 0, which is the form of the response.
        self.put_in_line(api, Header { version: 0, ..header }, reply, 0, out);
        Ok(())
    }
}
