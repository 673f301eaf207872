"""Long-context questions made from published multi-hop questions."""

import json
import random
import re
import sqlite3

import pytest
import yaml
from conftest import REAL_DATA, write_jsonl
from filelock import FileLock

from lf_longpo.cli import main
from lf_longpo.data.questions import Source, check_questions

MUSIQUE = REAL_DATA / "musique_train_100.json"
needs_data = pytest.mark.skipif(not MUSIQUE.is_file(), reason="MuSiQue is not next to the checkout")


def write_config(tmp_path, **changes):
    config = {
        "input": str(MUSIQUE),
        "output": str(tmp_path / "out/questions.jsonl"),
        "tokenizer": "smollm2-135m",
        "min_tokens": 8000,
        "max_tokens": 16000,
    }
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config | changes))
    return str(tmp_path / "c.yaml")


def made(tmp_path):
    return [json.loads(line) for line in (tmp_path / "out/questions.jsonl").read_text().splitlines()]


def passages(row):
    return re.split(r"(?:^|\n\n)Passage \d+:\n", row["context"])[1:]


@needs_data
@pytest.mark.slow
def test_musique_over_8k_to_16k_tokens(tmp_path, tokenizer, capsys):
    config = write_config(tmp_path)
    assert main(["synthesize", "multihop", config]) == 0
    rows = made(tmp_path)
    published = {row["id"]: row for row in json.loads(MUSIQUE.read_text())}
    assert [row["id"] for row in rows] == list(published)
    assert len(check_questions(Source(str(tmp_path / "out/questions.jsonl")))) == 100

    places = []
    for row in rows:
        counted = len(tokenizer.tokenize(row["context"]))
        assert 8000 * 0.975 <= counted <= 16000 * 1.025 and abs(counted - row["tokens"]) < 0.025 * counted
        parts = passages(row)
        assert len(parts) == len(row["documents"]) == len(set(parts))
        supporting = [one for one in published[row["id"]]["paragraphs"] if one["is_supporting"]]
        texts = {f"{one['title']}\n{one['paragraph_text'].strip()}" for one in supporting}
        assert {parts[number - 1] for number in row["supporting"]} == texts
        # No other passage is of a supporting document.
        titles = {one["title"] for one in supporting}
        assert all(
            title not in titles for number, title in enumerate(row["documents"], 1) if number not in row["supporting"]
        )
        places += [(number - 0.5) / len(parts) for number in row["supporting"]]
    # Spread over the whole length: as many in each quarter as chance would put there, give or take three deviations.
    quarters = [sum(quarter / 4 <= place < (quarter + 1) / 4 for place in places) for quarter in range(4)]
    expected = len(places) / 4
    assert all(abs(number - expected) < 3 * (len(places) * 3 / 16) ** 0.5 for number in quarters), quarters
    card = (tmp_path / "out/questions.card.md").read_text()
    assert "| musique | CC BY 4.0 | 100 |" in card

    before = (tmp_path / "out/questions.jsonl").read_bytes()
    assert main(["synthesize", "multihop", config]) == 0
    assert (tmp_path / "out/questions.jsonl").read_bytes() == before
    assert main(["synthesize", "multihop", config, "seed=1"]) == 0
    assert (tmp_path / "out/questions.jsonl").read_bytes() != before


FILL = " and then some, so that it is about as long as a paragraph of an encyclopedia" * 3


def hotpot(number, **changes):
    """A question in HotpotQA's published form."""
    context = [
        [f"Title {number}.{k}", [f"Sentence {k} of {number}.", f" It has {k} more words{FILL}."]] for k in range(4)
    ]
    row = {
        "_id": f"h{number}",
        "question": f"Which, {number}?",
        "answer": f"It {number}",
        "context": context,
        "supporting_facts": [[f"Title {number}.1", 0], [f"Title {number}.3", 1]],
    }
    return row | changes


def small(tmp_path, rows, **changes):
    sizes = {"min_tokens": 800, "max_tokens": 1000}
    return write_config(tmp_path, input=str(write_jsonl(tmp_path / "hotpot.jsonl", rows)), **(sizes | changes))


def test_hotpotqa_as_published_and_as_on_the_hub(tmp_path):
    rows = [hotpot(number) for number in range(60)]
    as_on_hub = rows[0] | {
        "context": {
            "title": [title for title, _ in rows[0]["context"]],
            "sentences": [sentences for _, sentences in rows[0]["context"]],
        },
        "supporting_facts": {"title": ["Title 0.1", "Title 0.3"], "sent_id": [0, 1]},
    }
    assert main(["synthesize", "multihop", small(tmp_path, rows)]) == 0
    published = made(tmp_path)
    assert published[0]["source"] == "hotpotqa" and len(published[0]["supporting"]) == 2
    assert main(["synthesize", "multihop", small(tmp_path, [as_on_hub, *rows[1:]])]) == 0
    assert made(tmp_path) == published
    bare = [[title, [sentence.strip() for sentence in sentences]] for title, sentences in rows[0]["context"]]
    wiki = rows[0] | {"evidences": [], "context": bare}  # 2WikiMultiHopQA has no spaces between sentences
    assert main(["synthesize", "multihop", small(tmp_path, [wiki, *rows[1:]])]) == 0
    assert made(tmp_path)[0] == published[0] | {"source": "2wikimultihopqa", "licence": "Apache-2.0"}


def test_a_corpus_gives_articles_and_distractors(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(40):
        (folder / f"Article {number}.txt").write_text(f"Article {number} says something. " * 12)
    # Underscores and case apart, the title of a supporting paragraph.
    (folder / "title_0.1.md").write_text(f"More about it. Sentence 1 of 0. It has 1 more words{FILL}. And so on.")
    config = small(tmp_path, [hotpot(0)], corpus=str(folder), min_tokens=1000, max_tokens=1200, questions=3)
    assert main(["synthesize", "multihop", config]) == 0
    rows = made(tmp_path)
    assert [row["id"] for row in rows] == ["h0", "h0#1", "h0#2"]
    for row in rows:
        assert any(
            f"Sentence 1 of 0. It has 1 more words{FILL}." in part and "And so on" in part for part in passages(row)
        )
        assert sum(title.casefold() in ("title 0.1", "title_0.1") for title in row["documents"]) == 1
    assert len({row["context"] for row in rows}) == 3

    # The index is recreated when the corpus has changed, and reused when it has not.
    index = tmp_path / "out/questions.index.sqlite"
    stamp = index.stat().st_mtime_ns
    assert main(["synthesize", "multihop", config]) == 0
    assert index.stat().st_mtime_ns == stamp
    (folder / "Article 7.txt").write_text("Something else. " * 30)
    assert main(["synthesize", "multihop", config]) == 0
    assert index.stat().st_mtime_ns != stamp


PARAGRAPH = {"title": "T", "paragraph_text": "x", "is_supporting": True}
MUSIQUE_ROW = {"id": "m", "question": "Q?", "answer": "A", "paragraphs": [PARAGRAPH]}
ODD = [
    (
        {"id": "x", "question": "Q?"},
        "the row has neither the field paragraphs (MuSiQue) nor context and supporting_facts",
    ),
    (hotpot(99, supporting_facts=[["Another", 0]]), "the supporting title 'Another' is not in the field context"),
    (hotpot(99, supporting_facts=[[["T"], 0]]), "the field supporting_facts must hold pairs of title and sent_id"),
    (hotpot(99, context=[["Title 99.1", [" "]], ["Title 99.3", ["x"]]]), "paragraph 1: it supports the answer and is"),
    (hotpot(99, context=[["T", ["x", None]]]), "paragraph 1: title and text must be texts"),
    (hotpot(99, supporting_facts=None), "the field supporting_facts must hold pairs of title and sent_id"),
    (hotpot(99, answer_aliases="x", answer=""), "the field answer must be a text that is not empty"),
    (MUSIQUE_ROW | {"paragraphs": [PARAGRAPH | {"is_supporting": False}]}, "no paragraph supports question 'm'"),
    (MUSIQUE_ROW | {"paragraphs": [{"title": "T", "text": "x"}]}, "paragraph 1: the field paragraph_text is missing; "),
    (
        MUSIQUE_ROW | {"paragraphs": ["x"]},
        "paragraph 1: the paragraph must be an object with title, paragraph_text and is_supporting",
    ),
    (MUSIQUE_ROW | {"paragraphs": [PARAGRAPH | {"paragraph_text": FILL * 99}]}, "the supporting documents alone take"),
    ("x", "the row must be an object; name a file of MuSiQue, HotpotQA or 2WikiMultiHopQA"),
]


def test_odd_questions_are_passed_over_counted_and_named(tmp_path, capsys):
    rows = [hotpot(number) for number in range(60)]
    config = small(tmp_path, [*rows, *(row for row, _ in ODD)])
    assert main(["synthesize", "multihop", config]) == 0
    assert [row["id"] for row in made(tmp_path)] == [f"h{number}" for number in range(60)]
    printed = capsys.readouterr().out.replace("\n", " ")
    assert f"skipped questions: {len(ODD)}" in printed and f"... and {len(ODD) - 10} more" in printed
    for number, (_, said) in enumerate(ODD[:10], 61):
        assert re.search(rf"line {number}[:,] {re.escape(said)}", printed), (number, said)


@pytest.mark.parametrize("odd", range(len(ODD)))
def test_a_file_without_any_usable_question_is_refused_with_the_reason(tmp_path, capsys, odd):
    row, said = ODD[odd]
    other = {"title": "Other", "paragraph_text": FILL * 200, "is_supporting": False}
    if odd == 10:
        row = row | {"paragraphs": [*row["paragraphs"], other]}
    assert main(["synthesize", "multihop", small(tmp_path, [row])]) == 2
    err = capsys.readouterr().err
    assert re.search(rf"hotpot\.jsonl, line 1[:,] {re.escape(said)}", err), err
    assert not (tmp_path / "out/questions.jsonl").exists()


def test_titles_are_found_in_other_spellings_and_empty_distractors_left_out(tmp_path):
    rows = [hotpot(number) for number in range(60)]
    context = rows[0]["context"]
    context[1][0], context[3][0] = "AT&amp;T_in  Bern", "TITLE 0.3"
    context[0][1] = []
    rows[0]["supporting_facts"] = [["at&t in Bern", 0], ["Title 0.3", 0]]
    assert main(["synthesize", "multihop", small(tmp_path, rows)]) == 0
    row = made(tmp_path)[0]
    assert {row["documents"][number - 1] for number in row["supporting"]} == {"AT&amp;T_in  Bern", "TITLE 0.3"}
    assert "Title 0.0" not in row["documents"]
    # Where one spelling is the very one, the other is another document.
    rows[0]["context"] = [*context, ["at&t in Bern", ["The very one."]]]
    assert main(["synthesize", "multihop", small(tmp_path, rows)]) == 0
    row = made(tmp_path)[0]
    assert {row["documents"][number - 1] for number in row["supporting"]} == {"at&t in Bern", "TITLE 0.3"}


def test_lines_that_cannot_be_read_and_repeated_ids_are_refused_together(tmp_path, capsys):
    config = small(tmp_path, [hotpot(0), hotpot(1), hotpot(0), hotpot(2, question="\ud83d?")])
    with (tmp_path / "hotpot.jsonl").open("a") as file:
        file.write('{"_id": \n')
    assert main(["synthesize", "multihop", config]) == 2
    err = capsys.readouterr().err
    assert "3 rows cannot be used" in err and "line 3: id 'h0' is already used in" in err
    assert "line 4: the field question holds \\ud83d" in err and "line 5 is not JSON" in err


def test_too_little_to_fill_a_context_is_told(tmp_path, capsys):
    config = small(tmp_path, [hotpot(number) for number in range(3)], min_tokens=5000, max_tokens=6000)
    assert main(["synthesize", "multihop", config]) == 2
    assert "all passages together reach" in capsys.readouterr().err
    assert not (tmp_path / "out/questions.jsonl").exists()


def test_articles_without_title_or_text_are_passed_over(tmp_path, capsys):
    config = small(tmp_path, [hotpot(0)])
    empty = [{"text": "no title"}, {"title": "Empty", "text": " "}, 7]
    articles = [{"title": f"A{number}", "text": f"Article {number} says it. " * 20} for number in range(40)]
    corpus = write_jsonl(tmp_path / "corpus.jsonl", [*empty, *articles])
    assert main(["synthesize", "multihop", config, f"corpus={corpus}"]) == 0
    printed = capsys.readouterr().err
    assert "skipped articles: 3" in printed and f"{corpus}, line 2: the field text" in printed
    write_jsonl(corpus, empty)
    assert main(["synthesize", "multihop", config, f"corpus={corpus}"]) == 2
    assert f"corpus: 3 articles cannot be used:\n{corpus}, line 1: the field title" in capsys.readouterr().err


@pytest.mark.slow
def test_needles_stand_where_they_are_wanted(tmp_path, tokenizer):
    config = tmp_path / "needle.yaml"
    settings = {
        "output": str(tmp_path / "out/questions.jsonl"),
        "tokenizer": "smollm2-135m",
        "questions": 12,
        "hops": [1, 3],
        "depths": [0.0, 0.5, 1.0],
        "min_tokens": 2000,
        "max_tokens": 4000,
    }
    config.write_text(yaml.safe_dump(settings))
    assert main(["synthesize", "needle", str(config)]) == 0
    rows = made(tmp_path)
    assert len(rows) == 12 and len({row["context"] for row in rows}) == 12
    assert len(check_questions(Source(str(tmp_path / "out/questions.jsonl")))) == 12
    for number, row in enumerate(rows):
        hops, depth = ((1, 3)[number // 3 % 2], (0.0, 0.5, 1.0)[number % 3])
        counted = len(tokenizer.tokenize(row["context"]))
        assert 2000 <= row["tokens"] <= 4000 and abs(counted - row["tokens"]) < 0.05 * row["tokens"]
        # The chain can be followed, and by nothing else: each name of it is in the facts alone.
        who = re.search(r"([A-Z]\w+ [A-Z]\w+)", row["question"])[1]
        for _ in range(hops - 1):
            (who,) = re.findall(rf"{who} left the keys with ([^.]+)\.", row["context"])
        assert row["question"].count("left the keys with") == hops - 1
        fact = f"The locker of {who} has the number {row['answer']}."
        assert row["context"].count(row["answer"]) == row["context"].count(fact) == 1
        assert row["context"].count(who) == min(hops, 2)
        found = len(tokenizer.tokenize(row["context"][: row["context"].index(fact)])) / counted
        assert found == pytest.approx(depth, abs=0.03)
    before = (tmp_path / "out/questions.jsonl").read_bytes()
    assert main(["synthesize", "needle", str(config)]) == 0
    assert (tmp_path / "out/questions.jsonl").read_bytes() == before


def question(id, words, **changes):
    return {"id": id, "question": f"What of {id}?", "answer": "It", "context": words} | changes


def write_mix(tmp_path, inputs, **changes):
    settings = {
        "inputs": [str(write_jsonl(tmp_path / f"{name}.jsonl", rows)) for name, rows in inputs.items()],
        "output": str(tmp_path / "out/questions.jsonl"),
        "tokenizer": "smollm2-135m",
    }
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump(settings | changes))
    return str(tmp_path / "mix.yaml")


def english(seed, length=200):
    draw = random.Random(seed)
    words = "the river runs under bridges while people walk along its banks and speak about weather trade ships".split()
    return " ".join(draw.choice(words) for _ in range(length))


def test_mixed_questions_are_filtered_by_length_language_and_duplicate(tmp_path, capsys):
    first, near = english(1), english(1).split()
    near[100] = "suddenly"
    inputs = {
        "one": [question("a", first), question("b", english(2)), question("long", english(3, 2000))],
        "two": [
            question("same", first),
            question("near", " ".join(near)),
            question("zh", "这条河从桥下流过,人们沿着河岸走,谈论天气和贸易。" * 9),
            question("c", english(4), source="musique", licence="CC BY 4.0"),
        ],
    }
    config = write_mix(tmp_path, inputs, max_tokens=1000, languages=["en"])
    assert main(["synthesize", "mix", config]) == 0
    assert [row["id"] for row in made(tmp_path)] == ["a", "b", "c"]
    printed = capsys.readouterr().out
    assert "1 removed: length" in printed and "1 removed: language" in printed
    assert "2 removed: duplicate context" in printed
    assert "| musique | CC BY 4.0 | 1 |" in (tmp_path / "out/questions.card.md").read_text()
    assert main(["synthesize", "mix", config, "questions_per_context=2", "near_duplicate=null", "languages=[]"]) == 0
    assert [row["id"] for row in made(tmp_path)] == ["a", "b", "same", "near", "zh", "c"]


def test_what_is_held_out_shares_no_document_with_training(tmp_path, capsys):
    """Questions 0 to 9 hang together by their supporting documents, 10 to 19 two by two, 20 to 29 by nothing."""

    def documents(number):
        own = [f"D{number}", f"D{number + 1}"] if number < 10 else [f"E{number // 2}" if number < 20 else f"F{number}"]
        return {"documents": ["Everybody's", *own], "supporting": list(range(2, 2 + len(own)))}

    rows = [question(f"q{n}", english(n), **documents(n)) for n in range(30)]
    held_out = tmp_path / "out/held_out.jsonl"
    config = write_mix(tmp_path, {"all": rows}, held_out=str(held_out), held_out_questions=13)
    assert main(["synthesize", "mix", config]) == 0
    away, kept = ({row["id"] for row in map(json.loads, path.read_text().splitlines())} for path in
                  (held_out, tmp_path / "out/questions.jsonl"))  # fmt: skip
    assert len(away) == 14 and len(kept) == 16 and not away & kept
    assert {f"q{n}" for n in range(10)} <= kept and {f"q{n}" for n in range(20, 30)} <= away
    assert all((f"q{n}" in away) == (f"q{n + 1}" in away) for n in range(10, 20, 2))
    before = held_out.read_bytes()
    assert main(["synthesize", "mix", config]) == 0 and held_out.read_bytes() == before

    assert main(["synthesize", "mix", config, "held_out_questions=30"]) == 2
    assert "leaves none to train on; lower held_out_questions" in capsys.readouterr().err
    assert main(["synthesize", "mix", config, "min_tokens=100000"]) == 2
    assert "30 removed for length" in capsys.readouterr().err


def test_ids_that_stand_twice_and_outputs_that_are_inputs_are_refused(tmp_path, capsys):
    config = write_mix(tmp_path, {"one": [question("a", english(1))], "two": [question("a", english(2))]})
    assert main(["synthesize", "mix", config]) == 2
    assert "two.jsonl, line 1: id 'a' is already used in" in capsys.readouterr().err
    assert main(["synthesize", "mix", config, f"output={tmp_path / 'one.jsonl'}"]) == 2
    assert "would overwrite" in capsys.readouterr().err


def test_articles_that_are_too_long_for_what_is_left_are_cut(tmp_path, tokenizer, capsys):
    articles = [
        {"title": f"Long {n}", "text": " ".join(f"Sentence {k} of {n}." for k in range(260))} for n in range(30)
    ]
    articles.append({"title": "Title 1.1", "text": "The article of it. " * 20})
    corpus = write_jsonl(tmp_path / "corpus.jsonl", articles)
    rows = [hotpot(number) for number in range(6)]
    rows[1]["context"].insert(0, ["Title 1.1", ["Another paragraph of the same article."]])
    config = small(tmp_path, rows, corpus=str(corpus), min_tokens=4000, max_tokens=8000, corpus_licence="CC BY 4.0")
    assert main(["synthesize", "multihop", config]) == 0
    for row in made(tmp_path):
        counted = len(tokenizer.tokenize(row["context"]))
        assert row["tokens"] == counted and 4000 * 0.97 <= counted <= 8000 * 1.03
        assert row["licence"] == "CC BY-SA 4.0; corpus: CC BY 4.0"
    assert made(tmp_path)[1]["context"].count("The article of it. " * 19) == 1  # two paragraphs, one article
    assert "11 titles of supporting documents are not in the corpus" in capsys.readouterr().out


def test_an_index_is_not_shared_or_overwritten(tmp_path, capsys):
    rows = [hotpot(number) for number in range(60)]
    other = tmp_path / "calls.sqlite"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE paid (calls TEXT)")
    before = other.read_bytes()
    assert main(["synthesize", "multihop", small(tmp_path, rows, index=str(other))]) == 2
    assert f"index: {other} exists and is not an index of passages" in capsys.readouterr().err
    assert other.read_bytes() == before
    index = tmp_path / "index.sqlite"
    with FileLock(f"{index}.lock"):
        assert main(["synthesize", "multihop", small(tmp_path, rows, index=str(index))]) == 2
    assert "another run uses" in capsys.readouterr().err


def test_chinese_near_duplicates_are_found(tmp_path):
    draw = random.Random(5)
    text = "".join(draw.choice("这条河从桥下流过人们沿着河岸走谈论天气和贸易") for _ in range(400))
    near = text[:200] + "忽然" + text[202:]
    assert main(["synthesize", "mix", write_mix(tmp_path, {"zh": [question("a", text), question("b", near)]})]) == 0
    assert [row["id"] for row in made(tmp_path)] == ["a"]


@needs_data
@pytest.mark.slow
def test_held_out_questions_share_no_document_with_training_be_it_a_distractor(tmp_path):
    held_out = tmp_path / "out/held_out.jsonl"
    config = write_config(tmp_path, held_out=str(held_out), held_out_questions=30, min_tokens=4000, max_tokens=6000)
    assert main(["synthesize", "multihop", config]) == 0
    train, away = made(tmp_path), [json.loads(line) for line in held_out.read_text().splitlines()]
    assert len(away) >= 30 and len(train) + len(away) == 100
    texts = [{part.split("\n", 1)[1] for row in rows for part in passages(row)} for rows in (train, away)]
    titles = [{title.casefold() for row in rows for title in row["documents"]} for rows in (train, away)]
    assert not texts[0] & texts[1] and not titles[0] & titles[1]
    assert all(3900 <= row["tokens"] <= 6100 for row in (*train, *away))
