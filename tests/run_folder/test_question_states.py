"""The state of a question that ended early."""

from lf_longpo.run_folder.question_states import QuestionFacts, QuestionState, StateRules, state_of


def test_a_question_that_ended_early_lacks_no_rounds():
    facts = QuestionFacts("Who?", ("a",), probe_kept=True, responses=3, scored=3, usable=3, lowest=0.0, highest=1.0)
    rules = StateRules(30, 2, 0.0, True, 1.0, "rollout")
    assert state_of(facts, None, rules) == (QuestionState.UNFINISHED, "a later stage makes the pair")
    assert state_of(facts, None, rules._replace(stop=None)) == (QuestionState.UNFINISHED, "3 of 30 rounds")
    facts.highest = 0.5
    assert state_of(facts, None, rules) == (QuestionState.UNFINISHED, "3 of 30 rounds")
