"""Names that lead elsewhere somewhere: every way to write a dot and a slash, in every place where it may hurt."""

from itertools import product

DOTS = [
    "..", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "%25252e.", "%c0%ae%c0%ae", "%e0%80%ae.", "%u002e%u002e",
    "．．", "．.", "․․", "‥", "....", ". .", ".. ", " ..", ".\u200e.%00", "..%00", "..;%2f",
]  # fmt: skip
SLASHES = ["/", "%2f", "%2F", "%252f", "\\", "%5c", "%255c", "／", "＼", "//", "%c0%af", "%u2215"]
SHAPES = ["{d}{s}x", "a{s}{d}{s}x", "a{s}{d}{s}{d}{s}etc{s}passwd"]

ABSOLUTE = [
    "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd", "C:\\x", "C:/x", "c:x", "C%3A%5Cx", "C%3a/x", "Ｃ：/x",
    "\\\\host\\share", "//host/share", "file:///etc/passwd", "file:/etc//passwd", "http://x/y",
    "~//x", "a//b", "a/./b", "./a", "a/.", "a/..", ".", "..", "a/ /b", "a/. /b", "a/   ",
]  # fmt: skip
ODD = [f"a{chr(code)}b" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, 0x202E, 0x2066, 0x2069)]
LONG = ["a" * 256, "/".join(["a" * 250] * 5), "é" * 600]
MARKED = ["x#y", "#", "x%23y", "100%", "a%b", "%", "%00", "a％b", "a＃b", "\ufffd", "℀/x"]

CORPUS = list(
    dict.fromkeys(
        [
            *(shape.format(d=dots, s=slash) for shape, dots, slash in product(SHAPES, DOTS, SLASHES)),
            *ABSOLUTE,
            *ODD,
            *LONG,
            *MARKED,
        ]
    )
)
