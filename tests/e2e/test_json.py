"""RFC 8259, all of it, through the running bridge: what is JSON arrives byte for byte, what is not is refused with 400.

Each value stands as the payload of an event. The scanner's own table, with the exact byte of each error, is in
tests/unit/test_jsonscan.c."""

import harness
from harness import event

ESCAPES = b'"\\/bfnrt'
UTF8 = ["\x7f", "\x80", "ÿ", "߿", "ࠀ", "\ud7ff", "\ue000", "喵", "\ufdd0", "\ufeff", "\ufffe", "\uffff", "\U00010000", "🐱",
        "\U0001ffff", "\U0010ffff", "\u2028\u2029", "e\u0301", "\u202e"]

ACCEPTED = [
    # literals
    b"null", b"true", b"false",
    # numbers: every form of int, frac and exp, and sizes that no machine number holds
    b"0", b"-0", b"1", b"-1", b"9", b"10", b"-10", b"1234567890", b"152066840347062275", b"9007199254740993", b"9223372036854775808",
    b"18446744073709551616", b"1" * 400, b"-" + b"9" * 400, b"0.0", b"-0.0", b"0.1", b"1.50", b"0.10000000000000000000000000001",
    b"1." + b"0" * 400, b"0e0", b"0E0", b"-0e-0", b"1e2", b"1E2", b"1e+2", b"1e-2", b"1E+02", b"1e00", b"1e0000000000000000000001", b"1e999999",
    b"1e-999999", b"-1.5E+0099", b"0.0e+00", b"123.456e78",
    # strings
    b'""', b'" "', b'"a"', b'"plain"', b'"/"', b'"\'"', b'"[]{},:"', b'"//"', b'"/* */"', b'"null"', b'"%00"', b'"\x7f"', b'"' + b"x" * 5000 + b'"',
    *(b'"\\' + bytes([c]) + b'"' for c in ESCAPES),
    b'"\\u0000"', b'"\\u001f"', b'"\\u0022"', b'"\\u005C"', b'"\\u002F"', b'"\\u00e9\\u00E9"', b'"\\uabcd\\uABCD\\uAbCd"', b'"\\u55b5"', b'"\\ufeff"',
    b'"\\uffff"', b'"\\ud83d\\udc31"', b'"\\uD83D\\uDC31"', b'"\\ud800"', b'"\\udfff"', b'"\\udc00\\ud800"', b'"\\ud800\\ud800\\udc00"', b'"\\ud800x"',
    b'"\\\\u0000"', b'"\\\\\\""', b'"a\\nb"', b'"' + b"\\u0041" * 800 + b'"',
    *(b'"' + text.encode() + b'"' for text in UTF8),
    # arrays
    b"[]", b"[ ]", b"[\t\r\n ]", b"[0]", b"[ 0 ]", b"[0,1]", b"[ 0 , 1 ]", b"[[]]", b"[[],[]]", b"[{}]", b"[null,true,false,0,\"\",[],{}]", b'["]","["]',
    b"[" + b"0," * 3000 + b"0]", b"[" * 62 + b"]" * 62,
    # objects
    b"{}", b"{ }", b"{\t\r\n }", b'{"a":1}', b'{ "a" : 1 }', b'{"a":1,"b":2}', b'{"a":{"a":{"a":{}}}}', b'{"":0}', b'{"\\u0000":0}', b'{"a":1,"a":2}',
    b'{"\\u0061":1,"a":2}', '{"喵":"福禄"}'.encode(), b'{"b":1,"a":2}', b'{"}":"{"}', b'{"a":' * 62 + b"0" + b"}" * 62, b'{"constructor":0,"__proto__":1}',
    # white space is the sender's
    b" 0 ", b"\t0\t", b"\n0\n", b"\r0\r", b"\r\n{\r\n\t\"a\" :\t[ 1 ,\n2 ]\r\n}\r\n", b" " * 2000 + b"0",
]

REJECTED = [
    # literals
    b"", b" ", b"nul", b"nulll", b"Null", b"NULL", b"nil", b"none", b"undefined", b"tru", b"truee", b"True", b"TRUE", b"fals", b"False", b"yes", b"t", b"n",
    b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"true false", b"null,", b"null null",
    # numbers
    b"-", b"+", b"+1", b"--1", b"-+1", b"01", b"-01", b"00", b"-00", b"1.", b".1", b"-.1", b"-1.", b"1..2", b"1.2.3", b"0.e1", b"1.e1", b".e1", b"1e", b"1E", b"1e+",
    b"1e-", b"1e1.5", b"1ee2", b"1e+-2", b"0x1", b"0b1", b"0o7", b"1_000", b"1,000", b"1 000", b"1a", b"1f", b"1n", b"- 1", b"1 .5", "１".encode(), "٣".encode(),
    "−1".encode(),
    # strings: the quotes
    b'"', b'"a', b'a"', b"'a'", b"`a`", "“a”".encode(), b'"""', b'"a" "b"', b'"a"b', b"a", b'"\\"', b'"a\\',
    # every control character, raw
    *(b'"' + bytes([c]) + b'"' for c in range(0x20)),
    # escapes
    *(b'"\\' + bytes([c]) + b'"' for c in b"aevxUN01'?([{ \n\0\xff"),
    b'"\\u"', b'"\\u1"', b'"\\u12"', b'"\\u123"', b'"\\u123g"', b'"\\u 123"', b'"\\u+123"', b'"\\u-123"', b'"\\u0x12"', b'"\\ug123"', b'"\\U0041"', b'"\\u{41}"',
    b'"\\u12', b'"\\u00', b'"\\ud800\\u"', b'"\\ud800\\udc0"', b'"\\x41"', b'"\\101"',
    # UTF-8: stray, cut short, overlong, surrogates, beyond U+10FFFF
    b'"\x80"', b'"\xbf"', b'"\xc2"', b'"\xc2a"', b'"\xe0\xa0"', b'"\xe5\x96"', b'"\xe5a\xb5"', b'"\xf0\x90\x80"', b'"\xf0\x9f\x90a"', b'"\xc0\x80"', b'"\xc0\xaf"',
    b'"\xc1\xbf"', b'"\xe0\x80\xaf"', b'"\xe0\x9f\xbf"', b'"\xf0\x80\x80\xaf"', b'"\xf0\x8f\xbf\xbf"', b'"\xed\xa0\x80"', b'"\xed\xbf\xbf"',
    b'"\xed\xa0\xbd\xed\xb0\xb1"', b'"\xf4\x90\x80\x80"', b'"\xf5\x80\x80\x80"', b'"\xf8\x88\x80\x80\x80"', b'"\xfc\x84\x80\x80\x80\x80"', b'"\xfe"', b'"\xff"',
    b'"\xc2\x80\x80"', b'"\xff\xfea\0"',
    # arrays
    b"[", b"]", b"[[", b"[]]", b"[1", b"[1,", b"[,", b"[,]", b"[1,]", b"[,1]", b"[1,,2]", b"[1 2]", b"[1;2]", b"[1:2]", b'["a":1]', b"[1}", b"(1)", b"[a]", b"[1,\n",
    b"[" * 63 + b"]" * 64, b"[" * 64 + b"]" * 64, b"[" * 5000,
    # objects
    b"{", b"}", b"{}}", b"{{}}", b"{,}", b'{"a"}', b'{"a":}', b'{"a":1', b'{"a":1,', b'{"a":1,}', b'{,"a":1}', b'{"a":1,,"b":2}', b'{"a" 1}', b'{"a":1 "b":2}',
    b'{"a"::1}', b'{"a"=1}', b'{"a"=>1}', b'{"a",1}', b"{a:1}", b"{'a':1}", b"{1:1}", b"{null:1}", b"{[]:1}", b'{:1}', b'{"a":1]', b'{"a":1;"b":2}', b'{"a\n":1}',
    b'{"\xff":1}', b'{"a":' * 64 + b"0" + b"}" * 64,
    # what other languages allow
    b"// a\n1", b"1 // a", b"/* a */ 1", b"1 /* a */", b"# a\n1", b"[1,/**/2]", b"<a/>", b"a: 1", b"- 1", b"(1)", b"1;", b"0 or 1", b"{}[]",
    # what is no white space of JSON's
    b"\v1", b"\f1", b"1\f", b"\x001", b"1\0", b"\x1f1", b"\x851", b"\xa01", b"\xc2\xa01", b"\xe2\x80\x8b1", b"\xe2\x80\xa81", b"\xef\xbb\xbf1", b"\xe3\x80\x801",
    b"1\x1a", b"\x7f1",
]


def whole_bodies():
    """Where it is the document around the event that is wrong."""
    good = event
    yield from (b"", b" ", b"null", b"0", b'"a"', b"[]", b"{}", b"[" + good() + b"]", good() + good(), good() + b",", good() + b"\0", good()[:-1], good()[1:],
                good()[:-1] + b",}", b"\xef\xbb\xbf" + good(), b"\xff\xfe" + good().decode().encode("utf-16-le"), good().decode().encode("utf-16-be"),
                good().decode().encode("utf-32-le"), b"\x1f\x8b" + good(), good().replace(b'"', b"'"), b"//\n" + good(), good() + b"//", b"\0" + good())


def test_what_is_json_arrives_byte_for_byte_and_all_else_is_400(bridges, broker):
    assert len(ACCEPTED) >= 100 and len(REJECTED) >= 150
    bridge = bridges(broker)
    subscriber = harness.Subscriber(broker.port)
    connection = bridge.connection()
    sent = []
    for value in ACCEPTED:
        answer = bridge.post(event(payload=value), connection=connection)
        assert answer.status == 200, (value[:80], answer.body)
        sent.append(value.strip(b" \t\r\n"))  # the payload is the value; what stands around it is the object's
        refused = REJECTED[len(sent) % len(REJECTED)]  # between good ones, so that a refusal that leaves traces is seen
        assert bridge.post(event(payload=refused), connection=connection).status == 400, refused[:80]
    for body in [event(payload=value) for value in REJECTED] + list(whole_bodies()):
        answer = bridge.post(body, connection=connection)
        assert answer.status == 400 and answer.json["code"] == 400 and answer.json["data"] is None, body[-80:]
    received = [message.payload for message in subscriber.wait(len(sent))]
    assert received == sent
    subscriber.close()
    assert bridge.stop() == 0
    assert f"stopped accepted={len(sent)} duplicates=0 " in bridge.log()
