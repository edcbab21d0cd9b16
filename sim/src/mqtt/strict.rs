//! Rules of MQTT 3.1.1 that the codec leaves to its caller: it takes what it can make sense of, and a server has to
//! close the connection of a client that breaks them.

use rumqttc::mqttbytes::{self, PacketType};

use super::{Error, Packet};

const LEVEL: u8 = 4;
const RESERVED_FLAG: u8 = 0b0000_0001;
const WILL_FLAG: u8 = 0b0000_0100;
const PASSWORD_FLAG: u8 = 0b0100_0000;
const USERNAME_FLAG: u8 = 0b1000_0000;
/// What an option byte of a SUBSCRIBE has beside its QoS.
const RESERVED_OPTIONS: u8 = 0b1111_1100;

/// Looks at the bytes of the next packet, when all of them are there. What the codec refuses itself is left to it.
pub(super) fn check_bytes(input: &[u8], max_packet: usize) -> Result<(), Error> {
    // A PUBLISH uses all of its bits, and there are so many that nothing else is done for them.
    if input.first().is_none_or(|first| first >> 4 == PacketType::Publish as u8) {
        return Ok(());
    }
    let Ok(header) = mqttbytes::check(input.iter(), max_packet) else { return Ok(()) };
    let Ok(kind) = header.packet_type() else { return Ok(()) };
    let frame = &input[..header.frame_length()];
    let flags = match kind {
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => 0b0010,
        _ => 0,
    };
    if frame[0] & 0x0f != flags {
        return malformed(kind, "with wrong flags");
    }
    let body = body(frame);
    match kind {
        PacketType::Connect => check_connect(body),
        PacketType::Subscribe => check_subscribe(body),
        _ if fixed_length(kind).is_some_and(|length| length != body.len()) => {
            malformed(kind, "of a wrong length")
        }
        _ => Ok(()),
    }
}

/// Looks at a packet that was read.
pub(super) fn check_packet(packet: &Packet) -> Result<(), Error> {
    match packet {
        Packet::Publish(publish) if publish.topic.is_empty() => {
            malformed(PacketType::Publish, "without a topic")
        }
        Packet::Publish(publish) if publish.topic.contains(['+', '#', '\0']) => {
            malformed(PacketType::Publish, "to a topic with a wildcard or a NUL")
        }
        Packet::Subscribe(subscribe) if subscribe.pkid == 0 => {
            malformed(PacketType::Subscribe, "without an id")
        }
        Packet::Unsubscribe(unsubscribe) if unsubscribe.pkid == 0 => {
            malformed(PacketType::Unsubscribe, "without an id")
        }
        Packet::Unsubscribe(unsubscribe) if unsubscribe.topics.is_empty() => {
            malformed(PacketType::Unsubscribe, "without a filter")
        }
        _ => Ok(()),
    }
}

/// Nothing is read of a CONNECT of another version but that it is one, since its fields are others. Before MQTT 3.1.1
/// the protocol had another name.
fn check_connect(body: &[u8]) -> Result<(), Error> {
    let rest = match field(body) {
        Some((b"MQTT", [LEVEL, rest @ ..])) => rest,
        Some((b"MQTT" | b"MQIsdp", [level, ..])) => return Err(Error::ProtocolLevel(*level)),
        _ => return Ok(()),
    };
    let [flags, _, _, payload @ ..] = rest else { return Ok(()) };
    if flags & RESERVED_FLAG != 0 {
        return malformed(PacketType::Connect, "with the reserved flag");
    }
    let count = |flag: u8, fields: usize| if flags & flag == 0 { 0 } else { fields };
    let fields = 1 + count(WILL_FLAG, 2) + count(USERNAME_FLAG, 1) + count(PASSWORD_FLAG, 1);
    match (0..fields).try_fold(payload, |rest, _| Some(field(rest)?.1)) {
        Some([]) | None => Ok(()),
        Some(_) => malformed(PacketType::Connect, "with bytes after its payload"),
    }
}

fn check_subscribe(body: &[u8]) -> Result<(), Error> {
    let mut rest = body.get(2..).unwrap_or_default();
    while let Some((_, [options, next @ ..])) = field(rest) {
        if options & RESERVED_OPTIONS != 0 {
            return malformed(PacketType::Subscribe, "with reserved options");
        }
        rest = next;
    }
    Ok(())
}

fn fixed_length(kind: PacketType) -> Option<usize> {
    match kind {
        PacketType::PingReq | PacketType::PingResp | PacketType::Disconnect => Some(0),
        PacketType::ConnAck
        | PacketType::PubAck
        | PacketType::PubRec
        | PacketType::PubRel
        | PacketType::PubComp
        | PacketType::UnsubAck => Some(2),
        _ => None,
    }
}

/// What follows the type and the length, whose last byte is the first without the highest bit.
fn body(frame: &[u8]) -> &[u8] {
    let end = frame.iter().skip(1).position(|byte| byte & 0x80 == 0).map_or(frame.len(), |place| place + 2);
    frame.get(end..).unwrap_or_default()
}

/// A string or other bytes with their length before them, and what follows.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

fn malformed(kind: PacketType, what: &str) -> Result<(), Error> {
    Err(Error::Malformed(format!("{kind:?} {what}")))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::mqtt::{QoS, packet};

    const LIMIT: usize = 1024;

    /// As a connection looks at packets: the bytes, the codec, the packet.
    fn read(bytes: &[u8]) -> Result<Packet, Error> {
        check_bytes(bytes, LIMIT)?;
        let packet = Packet::read(&mut BytesMut::from(bytes), LIMIT);
        let packet = packet.map_err(|error| Error::Malformed(format!("the codec: {error}")))?;
        check_packet(&packet).map(|()| packet)
    }

    fn connect() -> Vec<u8> {
        let mut connect = packet::Connect::new("device/module");
        connect.set_login("user", "password");
        connect.last_will = Some(packet::LastWill::new("t", "gone", QoS::AtLeastOnce, false));
        let mut bytes = BytesMut::new();
        connect.write(&mut bytes).unwrap();
        bytes.to_vec()
    }

    fn changed(bytes: &[u8], place: usize, value: u8) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        bytes[place] = value;
        bytes
    }

    #[test]
    fn what_breaks_a_rule_is_malformed() {
        let connect = connect();
        let (place_of_level, place_of_flags) = (8, 9);
        assert_eq!((connect[place_of_level], connect[place_of_flags]), (4, 0b1100_1110));
        let mut longer = [&connect[..], b"x"].concat();
        longer[1] += 1;
        let cases: [(&str, &[u8]); 22] = [
            ("Connect with the reserved flag", &changed(&connect, place_of_flags, 0b1100_1111)),
            ("Connect with bytes after its payload", &longer),
            ("Connect with bytes after its payload", &changed(&connect, place_of_flags, 0b1000_1110)),
            ("Connect with wrong flags", &changed(&connect, 0, 0x11)),
            ("Subscribe with wrong flags", &[0x80, 6, 0, 1, 0, 1, b'a', 1]),
            ("Subscribe without an id", &[0x82, 6, 0, 0, 0, 1, b'a', 1]),
            ("Subscribe with reserved options", &[0x82, 10, 0, 1, 0, 1, b'a', 1, 0, 1, b'b', 5]),
            ("the codec: A Subscribe packet must contain", &[0x82, 2, 0, 1]),
            ("Unsubscribe with wrong flags", &[0xa3, 5, 0, 1, 0, 1, b'a']),
            ("Unsubscribe without an id", &[0xa2, 5, 0, 0, 0, 1, b'a']),
            ("Unsubscribe without a filter", &[0xa2, 2, 0, 1]),
            ("PingReq of a wrong length", &[0xc0, 1, 0]),
            ("PingReq with wrong flags", &[0xc1, 0]),
            ("Disconnect of a wrong length", &[0xe0, 1, 0]),
            ("PubAck of a wrong length", &[0x40, 3, 0, 1, 0]),
            ("PubAck with wrong flags", &[0x42, 2, 0, 1]),
            ("PubRel with wrong flags", &[0x60, 2, 0, 1]),
            ("ConnAck of a wrong length", &[0x20, 3, 0, 0, 0]),
            ("UnsubAck of a wrong length", &[0xb0, 0x83, 0x00, 0, 1, 0]),
            ("Publish without a topic", &[0x30, 2, 0, 0]),
            ("Publish to a topic with a wildcard or a NUL", &[0x30, 3, 0, 1, b'#']),
            ("the codec: Invalid protocol", &changed(&connect, 4, b'X')),
        ];
        for (expected, bytes) in cases {
            let error = read(bytes).unwrap_err().to_string();
            assert!(error.contains(expected), "{bytes:x?}: {error}");
        }
    }

    #[test]
    fn any_other_level_is_told_from_what_is_malformed() {
        for level in [0, 3, 5, 0x84, 255] {
            let error = read(&changed(&connect(), 8, level)).unwrap_err();
            assert!(matches!(error, Error::ProtocolLevel(told) if told == level), "{error}");
        }
        // As a client of MQTT 5 writes it, with properties that the codec would take for the client id.
        let five = [0x10, 16, 0, 4, b'M', b'Q', b'T', b'T', 5, 2, 0, 60, 0, 0, 3, b'a', b'b', b'c'];
        assert!(matches!(read(&five), Err(Error::ProtocolLevel(5))));
        let three = [&[0x10, 17, 0, 6][..], b"MQIsdp", &[3, 2, 0, 60, 0, 3], b"abc"].concat();
        assert!(matches!(read(&three), Err(Error::ProtocolLevel(3))));
    }

    #[test]
    fn what_keeps_the_rules_is_read() {
        let cases: [&[u8]; 8] = [
            &connect(),
            &[0x82, 10, 0, 1, 0, 1, b'a', 1, 0, 1, b'b', 2],
            &[0xa2, 5, 0, 1, 0, 1, b'a'],
            &[0x3d, 6, 0, 1, b't', 0, 1, b'x'],
            &[0x62, 2, 0, 1],
            &[0x40, 2, 0, 1],
            &[0xc0, 0],
            &[0xe0, 0],
        ];
        for bytes in cases {
            assert!(read(bytes).is_ok(), "{bytes:x?}: {:?}", read(bytes));
            for end in 0..bytes.len() {
                assert!(check_bytes(&bytes[..end], LIMIT).is_ok(), "{bytes:x?} up to {end}");
            }
        }
    }
}
