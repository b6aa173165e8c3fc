import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.quality import score

ENGLISH = "The surface of the lake reflects the light that falls on it, and the first observers found that it is efficient."
CLEAN = {
    "English": ENGLISH,
    "German": "Die Straße ist groß, und der Fußgänger weiß, dass außer ihm niemand da ist. Donaudampfschifffahrt.",
    "French": "L’élève était très étonné d’apprendre que l’œuvre, naïve, n’était pas la sienne.",
    "names": "The theorem of Weierstraß and the work of Gauß are the basis of the theory that Erdős and McDonald read.",
    "Russian": "Операционная система управляет ресурсами компьютера и предоставляет услуги программам.",
    "Greek": "Το λειτουργικό σύστημα διαχειρίζεται τους πόρους του υπολογιστή.",
    "Arabic": "نظام التشغيل يدير موارد الحاسوب ويقدم خدمات للبرامج.",
    "Hebrew": "מערכת ההפעלה מנהלת את משאבי המחשב.",
    "Hindi": "ऑपरेटिंग सिस्टम कंप्यूटर के संसाधनों का प्रबंधन करता है।",
    "Thai": "ระบบปฏิบัติการจัดการทรัพยากรของคอมพิวเตอร์และให้บริการแก่โปรแกรม",
    "Chinese": "操作系统管理计算机的硬件资源，并且为程序提供服务。",
    "Japanese": "オペレーティングシステムはコンピュータの資源を管理する。",
    "Korean": "운영 체제는 컴퓨터의 자원을 관리하는 소프트웨어이다.",
    "mathematics": "∂f/∂x = lim h→0 (f(x+h) − f(x))/h, ∑ αᵢxᵢ ≤ β, Δx·Δp ≥ ħ/2, λ = 5 μm, so that v = 3 m/s and 2πr",
    "code": "public static void main(String[] args) { List<String> namesByKey = new ArrayList<>(); getElementById(x); }",
}
BROKEN = {
    "lost characters": ENGLISH.replace("fl", "\ufffd").replace("ff", "\x00").replace("fi", "\ue001"),
    "marks of a font without a map": "(cid:12)(cid:45)(cid:3) " + ENGLISH,
    "ß for fl": ENGLISH.replace("fl", "ß"),
    "Þ for fi": ENGLISH.replace("fi", "Þ"),
    "® for fi": ENGLISH.replace("ffi", "f®"),
    "an apostrophe of the Macintosh": ENGLISH + " They donÕt know.",
    "spread letters": "T h e s u r f a c e of the lake " + ENGLISH,
    "spaces lost": "Thesurfaceofthelakereflectsthelightthatfallsonit " + ENGLISH,
    "two alphabets in a word": ENGLISH.replace("reflects", "reflеctс").replace("light", "lиght"),
    "a wrong encoding": ENGLISH + " Itâ€™s cafÃ© time.",
    "a cipher": "Wkh vxuidfh ri wkh odnh uhiohfwv " * 4 + "Dqrwkhu brrn zklfk grhv qrw frqvlvw ri wkhp " * 4,
}


@pytest.mark.parametrize("kind", CLEAN)
def test_clean_text_of_any_script_scores_well(kind: str) -> None:
    assert score(CLEAN[kind] * 5) > 0.99


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_text_scores_below_clean_text(kind: str) -> None:
    assert score(BROKEN[kind]) < 0.95


def test_more_damage_scores_less() -> None:
    scores = [score(ENGLISH + " \ufffd\ufffd" * count) for count in (0, 1, 10, 100)]
    assert scores == sorted(set(scores), reverse=True)


def test_a_name_with_an_inner_capital_is_no_damage() -> None:
    assert score((ENGLISH + " By OpenStax and YouTube. ") * 5) == score(ENGLISH)


@given(st.text())
def test_every_text_has_a_score_and_only_an_empty_one_has_none(text: str) -> None:
    value = score(text)
    assert 0 <= value <= 1
    assert (value == 0) == (not text.translate(dict.fromkeys(map(ord, " \n\r\t"))))
