"""What speaks for an option beside the model: the course's own text, and how question and options are put."""

from assistant.card import EVIDENCE
from assistant.evidence import columns, gather
from assistant.mcq import MCQ
from assistant.quiz import make_quiz
from ingest.course import Course


def test_every_kind_of_evidence_finds_the_term_that_a_page_defines(operating_systems: Course) -> None:
    documents = [record.path for record in operating_systems.documents()]
    mcqs = [item.mcq for item in make_quiz({path: operating_systems.pages(path) for path in documents}, limit=20)]
    right = {"passage": 0, "statement": 0, "sentence": 0, "nearby": 0}
    for mcq in mcqs:
        found = gather(operating_systems, mcq)
        for kind in right:
            values = found[kind]
            assert len(values) == len(mcq.options)
            right[kind] += max(values) > min(values) and mcq.letters[values.index(max(values))] == mcq.answer
    assert all(count > 0.5 * len(mcqs) for count in right.values()), right  # chance is a quarter


def test_options_that_sum_up_the_others_are_told(operating_systems: Course) -> None:
    summing = ("Both A and B", "neither (a) nor (b)", "all of the above", "None of these answers", "Any of them.")
    others = ("Paging", "All processes wait", "Neither", "All of the time, in all we do", "Both a B-tree and a C compiler")
    found = gather(operating_systems, MCQ("What slows a computer down?", summing + others))
    assert found["sums_up"] == (1.0,) * 5 + (0.0,) * 5


def test_an_option_that_sums_up_stands_at_the_mean_of_the_others_by_its_words() -> None:
    evidence = dict.fromkeys(EVIDENCE, (0.0, 0.0, 0.0)) | {"sentence": (1.0, 3.0, 9.0), "sums_up": (0.0, 0.0, 1.0)}
    weighed = dict(zip(("own", *EVIDENCE), columns((-1.0, -2.0, -9.0), evidence), strict=True))
    assert weighed["own"] == (-1.0, -2.0, -1.5)
    assert weighed["sentence"] == (1.0, 3.0, 2.0)
    assert weighed["sums_up"] == (0.0, 0.0, 1.0)
    everything = evidence | {"sums_up": (1.0, 1.0, 1.0)}
    assert columns((-1.0, -2.0, -9.0), everything)[0] == (-1.0, -2.0, -9.0)  # no other to stand beside


def test_a_question_without_words_has_no_evidence_by_words(operating_systems: Course) -> None:
    found = gather(operating_systems, MCQ("???", ("!!!", "...")))
    assert found["sentence"] == found["nearby"] == found["sums_up"] == (0.0, 0.0)
