//! Field tables and arrays, to and from the model's typed values.
//!
//! ```text
//! table   length u32, then per field: name (length u8, bytes), value
//! array   length u32, then values
//! value   kind u8, then   t bool u8   b i8   B u8   s i16   u u16   I i32   i u32   l L i64   f f32   d f64
//!                         D scale u8, value i32   T seconds u64   S x length u32, bytes   F table   A array   V
//! ```
//! The kinds are RabbitMQ's reading of the letters. Integers are written as `I` where they fit, else as `l`.

use base::{Put, Reader};
use model::{Arguments, Value};

use super::Malformed;

const TOO_DEEP: Malformed = Malformed::Syntax("tables are nested too deeply");
const UNKNOWN: Malformed = Malformed::Syntax("a field value has an unknown kind");

/// Reads the fields of a table without its length. `depth` is how many tables and arrays it may nest.
pub fn decode_fields(bytes: &[u8], depth: u8) -> Result<Arguments, Malformed> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let mut reader = Reader::new(bytes);
    let mut fields = Vec::new();
    while !reader.is_empty() {
        let name = short_text(&mut reader)?.to_owned();
        fields.push((name, decode_value(&mut reader, depth)?));
    }
    Ok(Arguments(fields))
}

fn decode_value(reader: &mut Reader<'_>, depth: u8) -> Result<Value, Malformed> {
    Ok(match reader.u8()? {
        b't' => Value::Bool(reader.u8()? != 0),
        b'b' => Value::Int(i64::from(reader.u8()? as i8)),
        b'B' => Value::Int(i64::from(reader.u8()?)),
        b's' => Value::Int(i64::from(reader.i16_be()?)),
        b'u' => Value::Int(i64::from(reader.u16_be()?)),
        b'I' => Value::Int(i64::from(reader.i32_be()?)),
        b'i' => Value::Int(i64::from(reader.u32_be()?)),
        b'l' | b'L' => Value::Int(reader.i64_be()?),
        b'f' => Value::Float(f64::from(f32::from_bits(reader.u32_be()?))),
        b'd' => Value::Float(f64::from_bits(reader.u64_be()?)),
        b'D' => Value::Decimal(reader.u8()?, reader.i32_be()?),
        b'T' => Value::Timestamp(reader.u64_be()?),
        b'S' => Value::Text(long(reader)?.to_vec()),
        b'x' => Value::Bytes(long(reader)?.to_vec()),
        b'F' => Value::Table(decode_fields(long(reader)?, depth)?),
        b'A' => Value::List(decode_list(long(reader)?, depth)?),
        b'V' => Value::Null,
        _ => return Err(UNKNOWN),
    })
}

fn decode_list(bytes: &[u8], depth: u8) -> Result<Vec<Value>, Malformed> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let mut reader = Reader::new(bytes);
    let mut items = Vec::new();
    while !reader.is_empty() {
        items.push(decode_value(&mut reader, depth)?);
    }
    Ok(items)
}

/// Checks the form of the fields of a table without keeping anything.
pub fn check_fields(bytes: &[u8], depth: u8) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        short(&mut reader)?;
        check_value(&mut reader, depth)?;
    }
    Ok(())
}

/// Reads over one value, checking its form.
pub fn check_value(reader: &mut Reader<'_>, depth: u8) -> Result<(), Malformed> {
    let width = match reader.u8()? {
        b't' | b'b' | b'B' => 1,
        b's' | b'u' => 2,
        b'I' | b'i' | b'f' => 4,
        b'D' => 5,
        b'l' | b'L' | b'd' | b'T' => 8,
        b'V' => 0,
        b'S' | b'x' => return long(reader).map(|_| ()),
        b'F' => return check_fields(long(reader)?, depth),
        b'A' => return check_list(long(reader)?, depth),
        _ => return Err(UNKNOWN),
    };
    reader.bytes(width)?;
    Ok(())
}

fn check_list(bytes: &[u8], depth: u8) -> Result<(), Malformed> {
    let depth = depth.checked_sub(1).ok_or(TOO_DEEP)?;
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        check_value(&mut reader, depth)?;
    }
    Ok(())
}

/// Takes a short string: one byte of length.
#[inline]
pub fn short<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = usize::from(reader.u8()?);
    Ok(reader.bytes(length)?)
}

/// Takes a short string that must be UTF-8.
#[inline]
pub fn short_text<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    std::str::from_utf8(short(reader)?).map_err(|_| Malformed::Text)
}

/// Takes a long string: four bytes of length.
#[inline]
pub fn long<'a>(reader: &mut Reader<'a>) -> Result<&'a [u8], Malformed> {
    let length = reader.u32_be()? as usize;
    Ok(reader.bytes(length)?)
}

/// Appends a table with its length.
pub fn encode(table: &Arguments, out: &mut Vec<u8>) {
    lengthed(out, |out| {
        for (name, value) in &table.0 {
            put_short(out, name.as_bytes());
            encode_value(value, out);
        }
    });
}

fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.put_u8(b'V'),
        Value::Bool(value) => out.put(&[b't', u8::from(*value)]),
        Value::Int(value) => encode_int(*value, out),
        Value::Float(value) => fixed(out, b'd', &value.to_bits().to_be_bytes()),
        Value::Decimal(scale, value) => {
            out.put(&[b'D', *scale]);
            out.put(&value.to_be_bytes());
        }
        Value::Timestamp(seconds) => fixed(out, b'T', &seconds.to_be_bytes()),
        Value::Text(bytes) => put_kind_long(out, b'S', bytes),
        Value::Bytes(bytes) => put_kind_long(out, b'x', bytes),
        Value::List(items) => {
            out.put_u8(b'A');
            lengthed(out, |out| items.iter().for_each(|item| encode_value(item, out)));
        }
        Value::Table(table) => {
            out.put_u8(b'F');
            encode(table, out);
        }
    }
}

fn encode_int(value: i64, out: &mut Vec<u8>) {
    match i32::try_from(value) {
        Ok(value) => fixed(out, b'I', &value.to_be_bytes()),
        Err(_) => fixed(out, b'l', &value.to_be_bytes()),
    }
}

fn fixed(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    out.put(bytes);
}

fn put_kind_long(out: &mut Vec<u8>, kind: u8, bytes: &[u8]) {
    out.put_u8(kind);
    put_long(out, bytes);
}

/// Appends a short string; what is longer than 255 bytes is cut.
#[inline]
pub fn put_short(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(255)];
    out.put_u8(bytes.len() as u8);
    out.put(bytes);
}

/// Appends a long string.
#[inline]
pub fn put_long(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_u32_be(bytes.len() as u32);
    out.put(bytes);
}

/// Appends what `fill` writes behind its length.
pub fn lengthed(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_be(0);
    fill(out);
    let length = (out.len() - start - 4) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use base::Prng;

    pub(crate) fn random(prng: &mut Prng, depth: u8) -> Arguments {
        let names = ["", "k", "kµ", "kµy"];
        let count = prng.below(4) as usize;
        Arguments(names[..count].iter().map(|name| (name.to_string(), random_value(prng, depth))).collect())
    }

    fn random_value(prng: &mut Prng, depth: u8) -> Value {
        match prng.below(if depth == 0 { 8 } else { 10 }) {
            0 => Value::Null,
            1 => Value::Bool(prng.chance(1, 2)),
            2 => Value::Int(prng.draw() as i64 >> prng.below(64)),
            3 => Value::Float(prng.below(1000) as f64 / 8.0),
            4 => Value::Decimal(prng.draw() as u8, prng.draw() as i32),
            5 => Value::Timestamp(prng.draw()),
            6 => Value::Text(vec![b'x'; prng.below(9) as usize]),
            7 => Value::Bytes(vec![0xff; prng.below(9) as usize]),
            8 => Value::List((0..prng.below(4)).map(|_| random_value(prng, depth - 1)).collect()),
            _ => Value::Table(random(prng, depth - 1)),
        }
    }

    #[test]
    fn golden_bytes_of_every_kind_decode() {
        #[rustfmt::skip]
        let bytes = [
            1, b'a', b't', 1,  1, b'b', b'b', 0xff,  1, b'c', b'B', 0xff,  1, b'd', b's', 0xff, 0xfe,
            1, b'e', b'u', 0xff, 0xfe,  1, b'f', b'I', 0xff, 0xff, 0xff, 0xff,  1, b'g', b'i', 0xff, 0xff, 0xff, 0xff,
            1, b'h', b'l', 0, 0, 0, 1, 0, 0, 0, 0,  1, b'i', b'L', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            1, b'j', b'f', 0x3f, 0xc0, 0, 0,  1, b'k', b'd', 0x3f, 0xf8, 0, 0, 0, 0, 0, 0,
            1, b'l', b'D', 2, 0, 0, 1, 0,  1, b'm', b'T', 0, 0, 0, 0, 0, 0, 0, 9,
            1, b'n', b'S', 0, 0, 0, 2, b'h', b'i',  1, b'o', b'x', 0, 0, 0, 1, 7,  1, b'p', b'V',
            1, b'q', b'A', 0, 0, 0, 3, b'V', b't', 0,  1, b'r', b'F', 0, 0, 0, 4, 1, b'z', b't', 2,
        ];
        let of = |name: &str| decode_fields(&bytes, 3).unwrap().get(name).cloned().unwrap();
        let ints = [("b", -1), ("c", 255), ("d", -2), ("e", 0xfffe), ("f", -1), ("g", 0xffff_ffff)];
        ints.into_iter().for_each(|(name, int)| assert_eq!(of(name), Value::Int(int)));
        assert_eq!((of("a"), of("h"), of("i")), (Value::Bool(true), Value::Int(1 << 32), Value::Int(-1)));
        assert_eq!(
            (of("j"), of("k"), of("l")),
            (Value::Float(1.5), Value::Float(1.5), Value::Decimal(2, 256))
        );
        assert_eq!(
            (of("m"), of("n"), of("o")),
            (Value::Timestamp(9), Value::text("hi"), Value::Bytes(vec![7]))
        );
        assert_eq!(of("q"), Value::List(vec![Value::Null, Value::Bool(false)]));
        assert_eq!(of("r"), Value::Table(Arguments(vec![("z".into(), Value::Bool(true))])));
        assert_eq!((of("p"), check_fields(&bytes, 3)), (Value::Null, Ok(())));
        for cut in 0..bytes.len() {
            assert_eq!(check_fields(&bytes[..cut], 3).is_ok(), decode_fields(&bytes[..cut], 3).is_ok());
        }
    }

    #[test]
    fn tables_come_back() {
        let mut prng = Prng::new(7);
        for _ in 0..2000 {
            let table = random(&mut prng, 3);
            let mut bytes = Vec::new();
            encode(&table, &mut bytes);
            let mut reader = Reader::new(&bytes);
            let fields = long(&mut reader).unwrap();
            assert!(reader.is_empty());
            assert_eq!(decode_fields(fields, 5), Ok(table));
            assert_eq!(check_fields(fields, 5), Ok(()));
        }
    }

    #[test]
    fn nesting_is_bounded_and_bad_text_is_told_apart() {
        let mut table = Arguments::default();
        for _ in 0..40 {
            table = Arguments(vec![("n".into(), Value::List(vec![Value::Table(table)]))]);
        }
        let mut bytes = Vec::new();
        encode(&table, &mut bytes);
        assert_eq!(decode_fields(&bytes[4..], 80), Err(TOO_DEEP));
        assert_eq!(decode_fields(&bytes[4..], 81), Ok(table));
        assert_eq!(check_fields(&bytes[4..], 32), Err(TOO_DEEP));
        assert_eq!(decode_fields(&[1, 0xff, b'V'], 1), Err(Malformed::Text));
        assert_eq!(decode_fields(&[1, b'a', b'?'], 1), Err(UNKNOWN));
    }
}
