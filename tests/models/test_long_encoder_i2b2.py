"""Releases of i2b2, on files written in their form: what is read, mended, left out and refused."""

import itertools
import re
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unspool.errors import InputError
from unspool.models.long_encoder.tasks import read_examples
from unspool.models.long_encoder.tasks.annotated import Annotation, Notes, checked, unescape
from unspool.models.long_encoder.tasks.i2b2 import _elements

NOTE = "\nAdmission Date :\n2012-01-05\nHe took aspirin for his chest\npain .\n"


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    return path


def _entities(example):
    """Label and text of each run of tags, worked out from the tags alone."""
    found = []
    pairs = zip(example.words, example.labels, strict=True)
    for key, group in itertools.groupby(
        pairs, key=lambda pair: pair[1].split("-", 1)[-1] if pair[1] != "O" else None
    ):
        for (a, b), tag in group:
            if key is not None and tag.startswith("B-"):
                found.append([key, a, b])
            elif key is not None:
                found[-1][2] = b
    return [(label, example.text[a:b]) for label, a, b in found]


def _xml(root, tags, text=NOTE, *, cdata=True):
    inner = f"<![CDATA[{text}]]>" if cdata else escape(text)
    listed = "" if tags is None else "<TAGS>\n" + "\n".join(tags) + "\n</TAGS>\n"
    head = '<?xml version="1.0" encoding="UTF-8" ?>\n'
    return f"{head}<{root}>\n<TEXT>{inner}</TEXT>\n{listed}</{root}>\n"


def _event(quote, label, *, start=None, shift=0, raw=None, text=NOTE, name="EVENT"):
    start = text.index(quote) if start is None else start
    end = start + len(quote)
    shown = quoteattr(quote) if raw is None else f'"{raw}"'
    kind = "TYPE" if name != "EVENT" else "type"
    return (
        f'<{name} id="E0" start="{start + shift}" end="{end + shift}" text={shown} '
        f'modality="FACTUAL" polarity="POS" {kind}="{label}" />'
    )


R2012 = "ClinicalNarrativeTemporalAnnotation"


def test_events_of_2012(tmp_path):
    timex = '<TIMEX3 id="T0" start="18" end="28" text="2012-01-05" type="DATE" val="" mod="NA" />'
    link = '<TLINK id="TL0" fromID="E0" fromText="x" toID="T0" toText="y" type="OVERLAP" />'
    tags = [
        _event("Admission", "OCCURRENCE"),
        _event("aspirin", "TREATMENT"),
        _event("his chest\npain", "PROBLEM", raw="his chest pain"),
        timex,
        link,
    ]
    path = _write(tmp_path / "r/1.xml", _xml(R2012, tags))
    read = read_examples("ner", path)
    assert read.notes == ()
    assert read.examples[0].id == "1"
    assert read.examples[0].text == NOTE
    wanted = [("OCCURRENCE", "Admission"), ("TREATMENT", "aspirin"), ("PROBLEM", "his chest\npain")]
    assert _entities(read.examples[0]) == wanted
    for other in ("1.xml.extent", "1.xml.tlink", "1.xml.txt"):
        _write(tmp_path / "r" / other, "x")
    assert read_examples("ner", tmp_path / "r").examples == read.examples
    _write(path, _xml(R2012, tags).replace("\n", "\r\n"))
    assert read_examples("ner", path).examples == read.examples
    _write(path, _xml(R2012, tags, cdata=False))
    assert read_examples("ner", path).examples == read.examples


def test_what_is_not_as_it_should_be_is_mended_or_left_out_and_said(tmp_path):
    text = NOTE + 'H&H was "low" & his Hct < 30 ; his Hct < 30 .\n'
    tags = [
        _event("H&H", "TEST", raw="H&H", text=text),  # not well-formed
        _event('was "low"', "PROBLEM", raw='was "low"', text=text),  # nor is this
        _event("Hct < 30", "PROBLEM", raw="Hct < 30", text=text),
        _event("Hct < 30", "PROBLEM", raw="Hct < 30", text=text),  # twice
        _event("aspirin", "TREATMENT", shift=1, text=text),
        _event("aspirin for", "TREATMENT", text=text),
        _event("Date", " ", text=text),
        _event("nowhere", "TEST", start=30, text=text),
    ]
    path = _write(tmp_path / "7.xml", _xml(R2012, tags, text))
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(path.read_text())
    read = read_examples("ner", path)
    assert _entities(read.examples[0]) == [
        ("TREATMENT", "aspirin for"),
        ("TEST", "H&H"),
        ("PROBLEM", 'was "low"'),
        ("PROBLEM", "Hct < 30"),
    ]
    assert sorted(line.replace(str(path), "FILE") for line in read.notes) == [
        "annotations that are not in the text, left out: 1, the first in FILE",
        "annotations that overlap a longer one, left out: 1, the first in FILE",
        "annotations that stand near where they should, moved: 1, the first in FILE",
        "annotations without a type, left out: 1, the first in FILE",
    ]
    tags = [_event("Admission", "TEST", raw="other"), _event("aspirin", "TEST", raw="words")]
    with pytest.raises(InputError, match=r"2 of 2 annotations are not in the text.*'other'"):
        read_examples("ner", _write(path, _xml(R2012, tags)))


def test_de_identification_2014(tmp_path):
    text = "\n\n\nRecord date: 2067-05-03\n\nDr. O’Neil-Smith saw JaneRoe, 55 yo.\n"
    tags = [
        _event("2067-05-03", "DATE", text=text, name="DATE"),
        _event("O’Neil-Smith", "DOCTOR", text=text, name="NAME"),
        _event("Jane", "PATIENT", text=text, name="NAME"),
        _event("Roe", "PATIENT", text=text, name="NAME"),
        _event("55", "AGE", text=text, name="AGE"),
    ]
    _write(tmp_path / "set1/220-01.xml", _xml("deIdi2b2", tags, text))
    unlabelled = _write(tmp_path / "set2/220-02.xml", _xml("deIdi2b2", None, text))
    read = read_examples("ner", tmp_path)
    assert [e.id for e in read.examples] == ["220-01", "220-02"]
    assert _entities(read.examples[0]) == [  # Jane and Roe share a word, which is cut
        ("DATE", "2067-05-03"),
        ("DOCTOR", "O’Neil-Smith"),
        ("PATIENT", "Jane"),
        ("PATIENT", "Roe"),
        ("AGE", "55"),
    ]
    assert read.examples[1].labels is None
    assert set(read_examples("ner", _write(unlabelled, _xml("deIdi2b2", [], text))).examples[0]
               .labels) == {"O"}  # fmt: skip
    _write(tmp_path / "set2/220-01.xml", _xml("deIdi2b2", tags, text))
    with pytest.raises(InputError, match=r"220-01.xml have the same name"):
        read_examples("ner", tmp_path)


PHI = """<?xml version="1.0"?>
<ROOT>
<RECORD ID="641">
<TEXT>
Dr. <PHI TYPE="DOCTOR">Jane Roe</PHI> of <PHI TYPE="HOSPITAL">St. A&amp;B</PHI>, a & b &lt; 5
<PHI TYPE="DATE">01/01</PHI>/1995 ID<PHI TYPE="ID">77</PHI><PHI TYPE="PHONE">88</PHI>
[ report_end ]
</TEXT>
</RECORD>
<RECORD ID="642"><TEXT>Nobody.</TEXT></RECORD>
</ROOT>
"""


def test_de_identification_2006(tmp_path):
    path = _write(tmp_path / "train.xml", PHI)
    read = read_examples("ner", path)
    assert read.notes == ()
    first, second = read.examples
    assert (first.id, second.id) == ("641", "642")
    assert first.text.split("\n")[1] == "Dr. Jane Roe of St. A&B, a & b < 5"
    assert (
        _entities(first)
        == [
            ("DOCTOR", "Jane Roe"),
            ("HOSPITAL", "St. A&B"),
            ("DATE", "01/01"),
            ("ID", "ID77"),  # a word that an entity touches belongs to it
            ("PHONE", "88"),
        ]
        or _entities(first)[3:] == [("ID", "77"), ("PHONE", "88")]
    )
    assert set(second.labels) == {"O"}
    plain = _write(tmp_path / "test.xml", re.sub(r"<PHI[^>]*>|</PHI>", "", PHI))
    assert [e.labels for e in read_examples("ner", plain).examples] == [None, None]
    assert read_examples("ner", plain).examples[0].text == first.text


def test_a_phi_that_is_opened_twice_ends_where_it_is_opened_again(tmp_path):
    mistyped = PHI.replace("Jane Roe</PHI>", 'Jane Roe<PHI TYPE="DOCTOR">', 1)
    read = read_examples("ner", _write(tmp_path / "a.xml", mistyped))
    assert read.examples == read_examples("ner", _write(tmp_path / "b.xml", PHI)).examples
    assert read.notes[0].startswith("PHI marks that are opened inside another")
    whole = 'St. A&amp;B</PHI>, a & b &lt; 5\n<PHI TYPE="DATE">01/01</PHI>'
    unclosed = PHI.replace(whole, 'St. A&amp;B, <PHI TYPE="DATE">a & b &lt; 5</PHI>\n01/01', 1)
    read = read_examples("ner", _write(tmp_path / "a.xml", unclosed))
    assert _entities(read.examples[0])[1:3] == [("HOSPITAL", "St. A&B,"), ("DATE", "a & b < 5")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PHI.replace("</PHI>", "", 7), "record 641: a PHI PHONE is not closed"),
        (PHI.replace('<PHI TYPE="DOCTOR">', ""), "closes nothing"),
        (PHI.replace("</RECORD>\n<RECORD", "<RECORD"), "record 641 is not whole"),
        (PHI[: PHI.index("Nobody")], "record 642 is not whole"),
        (PHI.replace("Nobody.", " "), "record 642: the text is empty"),
        ("<ROOT></ROOT>", "holds no <RECORD>"),
        (_xml("root", []), "begins with <root>.*2006.*2012.*2014"),
        ("", "begins with <nothing>"),
        (_xml("deIdi2b2", []).replace("</TEXT>", ""), "has no <TEXT>"),
        (_xml("deIdi2b2", [], " \n"), "the text is empty"),
        (_xml("deIdi2b2", []).replace("</TAGS>", ""), "cut short"),
        (_xml("deIdi2b2", ['<AGE id="P1" start="x" end="2" text="" TYPE="A" />']), "got 'x' and"),
        (_xml("deIdi2b2", ['<AGE id="P1" start="1" end="2" text="A" />']), "P1> has no .*'TYPE'"),
    ],
)
def test_damaged_files_are_named(text, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_examples("ner", _write(tmp_path / "x.xml", text))


def test_concepts_of_2010_are_checked_against_the_text(tmp_path):
    note = "He took  aspirin and\nhis chest pain went .\n"
    _write(tmp_path / "txt/record-13.txt", note)
    lines = [
        'c="aspirin" 1:2 1:2||t="treatment"',
        'c="aspirin" 1:2 1:2||t="treatment"',  # as one is in the released test set
        'c="and his chest pain" 1:3 2:2||t="problem"',
        'c="chest pain" 2:1 2:2||t="problem"',
    ]
    concepts = _write(tmp_path / "concept/record-13.con", "\n".join(lines) + "\n")
    read = read_examples("ner", tmp_path)
    assert _entities(read.examples[0]) == [
        ("treatment", "aspirin"),
        ("problem", "and\nhis chest pain"),
    ]
    assert [line.split(":")[0] for line in read.notes] == [
        "annotations that overlap a longer one, left out"
    ]
    _write(concepts, 'c="warfarin" 1:2 1:2||t="treatment"\n')
    with pytest.raises(InputError, match=r"1 of 1 annotations.*'warfarin'"):
        read_examples("ner", tmp_path)
    _write(concepts, lines[0])
    _write(tmp_path / "other/record-13.txt", note)
    assert len(read_examples("ner", tmp_path).examples) == 1
    _write(tmp_path / "other/record-13.txt", "He took other aspirin")
    with pytest.raises(InputError, match="two texts that differ"):
        read_examples("ner", tmp_path)


@settings(deadline=None, max_examples=30)
@given(
    values=st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=12))
)
def test_elements_are_read_as_an_xml_reader_does(values):
    given_ = {f"a{i}": value for i, value in enumerate(values)}
    body = "<X " + " ".join(f"{name}={quoteattr(v, {})}" for name, v in given_.items()) + " />"
    body = re.sub(r"='([^']*)'", lambda m: '="' + m.group(1).replace('"', "&quot;") + '"', body)
    found = list(_elements(body))
    assert found == [("X", dict(ElementTree.fromstring(body).attrib))]


@settings(deadline=None, max_examples=30)
@given(text=st.text(max_size=40))
def test_references_are_read_as_they_are_written(text):
    assert unescape(escape(text, {'"': "&quot;", "'": "&apos;"})) == text
    assert unescape("".join(f"&#{ord(c)};" for c in text)) == text or any(
        0xD800 <= ord(c) < 0xE000 for c in text
    )


@settings(deadline=None, max_examples=30)
@given(text=st.text("ab ", min_size=1, max_size=30), data=st.data())
def test_entities_come_out_disjoint_and_in_order(text, data):
    spans = st.tuples(st.integers(0, len(text)), st.integers(0, len(text)), st.sampled_from("xy"))
    given_ = [Annotation(*each) for each in data.draw(st.lists(spans, max_size=8))]
    usable = [e for e in given_ if e.start < e.end and text[e.start : e.end].strip()]
    if len(given_) > 2 * len(usable):
        return  # most are not in the text, which is an error
    found = checked(text, given_, "x", Notes())
    assert set(found) <= {e[:3] for e in usable}
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(found))
    assert bool(found) == bool(usable)
