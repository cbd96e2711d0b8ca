//! A strict parser of syslog messages (RFC 5424, 6), and of their frames in a stream (RFC 6587, 3.4.1). Not tidegate's: what
//! it accepts is written down from the grammar.

/// A message. A field is `None` where it is NILVALUE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Facility and severity.
    pub(crate) priority: u8,
    pub(crate) time: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) application: Option<String>,
    pub(crate) process: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) text: String,
}

/// Parses one message. tidegate has no STRUCTURED-DATA, so that only NILVALUE is accepted.
pub(crate) fn parse(bytes: &[u8]) -> Result<Message, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| format!("not UTF-8: {error}"))?;
    let wrong = |what: &str| format!("{what}: {text:?}");
    let (priority, rest) =
        text.strip_prefix('<').and_then(|rest| rest.split_once('>')).ok_or_else(|| wrong("no PRI"))?;
    let value = number(priority, 0..=191).ok_or_else(|| wrong("PRI"))?;
    if priority.len() > 1 && priority.starts_with('0') {
        return Err(wrong("PRI with a leading zero"));
    }
    let mut fields = rest.splitn(7, ' ');
    let mut next = |what: &str| fields.next().ok_or_else(|| wrong(what));
    if next("VERSION")? != "1" {
        return Err(wrong("VERSION"));
    }
    let time = nil(next("TIMESTAMP")?);
    if time.as_deref().is_some_and(|time| !is_timestamp(time)) {
        return Err(wrong("TIMESTAMP"));
    }
    let mut name = |what: &str, longest: usize| {
        let field = next(what)?;
        let is_valid = (1..=longest).contains(&field.len()) && field.bytes().all(|byte| (33..=126).contains(&byte));
        if is_valid { Ok(nil(field)) } else { Err(wrong(what)) }
    };
    let (host, application) = (name("HOSTNAME", 255)?, name("APP-NAME", 48)?);
    let (process, id) = (name("PROCID", 128)?, name("MSGID", 32)?);
    // MSG is optional, and follows a space.
    let rest = next("STRUCTURED-DATA")?;
    let text = match rest.strip_prefix('-').ok_or_else(|| wrong("STRUCTURED-DATA"))? {
        "" => "",
        rest => rest.strip_prefix(' ').ok_or_else(|| wrong("no space before MSG"))?,
    };
    Ok(Message { priority: value as u8, time, host, application, process, id, text: text.to_owned() })
}

/// A message, and what follows it.
type FirstFrame<'s> = (&'s [u8], &'s [u8]);

/// The first message of a stream with octet counting, and what follows it; `None` while it is not whole.
pub(crate) fn first_frame(stream: &[u8]) -> Result<Option<FirstFrame<'_>>, String> {
    let wrong = || format!("no MSG-LEN: {:?}", String::from_utf8_lossy(&stream[..stream.len().min(80)]));
    let Some(space) = stream.iter().position(|&byte| byte == b' ') else {
        return if stream.iter().all(u8::is_ascii_digit) { Ok(None) } else { Err(wrong()) };
    };
    let digits = std::str::from_utf8(&stream[..space]).map_err(|_| wrong())?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    let length = digits.parse::<usize>().ok().filter(|_| is_number).ok_or_else(wrong)?;
    let rest = &stream[space + 1..];
    Ok((rest.len() >= length).then(|| rest.split_at(length)))
}

fn nil(field: &str) -> Option<String> {
    (field != "-").then(|| field.to_owned())
}

fn number(text: &str, range: std::ops::RangeInclusive<u32>) -> Option<u32> {
    let is_number = !text.is_empty() && text.len() <= 4 && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|value| is_number && range.contains(value))
}

/// `1985-04-12T23:20:50.52Z` or with an offset: four digits of the year, upper-case T and Z, one to six digits of a second.
fn is_timestamp(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else { return false };
    let parts = |text: &str, separator: char, lengths: &[usize], ranges: &[(u32, u32)]| {
        let parts: Vec<&str> = text.split(separator).collect();
        parts.len() == lengths.len()
            && parts.iter().zip(lengths).all(|(part, &length)| part.len() == length)
            && parts.iter().zip(ranges).all(|(part, &(least, most))| number(part, least..=most).is_some())
    };
    let offset_at = time.find(['Z', '+', '-']).unwrap_or(time.len());
    let (time, offset) = time.split_at(offset_at);
    let is_offset =
        offset == "Z" || offset.get(1..).is_some_and(|offset| parts(offset, ':', &[2, 2], &[(0, 23), (0, 59)]));
    let (time, is_fraction) = match time.split_once('.') {
        Some((time, fraction)) => {
            (time, (1..=6).contains(&fraction.len()) && fraction.bytes().all(|byte| byte.is_ascii_digit()))
        }
        None => (time, true),
    };
    is_offset
        && is_fraction
        && parts(date, '-', &[4, 2, 2], &[(0, 9999), (1, 12), (1, 31)])
        && parts(time, ':', &[2, 2, 2], &[(0, 23), (0, 59), (0, 59)])
}
