"""Who trains and who tests: disjoint, nested, stable, named or counted."""

from pathlib import Path

import pytest

from augment.segmentation import DataConfig, split_subjects
from cardiogen.base import CardiogenError
from cardiogen.data import Subject

SUBJECTS = [
    Subject(subject_id=f"s{i:02d}", folder=Path(), layout="ukbb", label_map="ukbb", labels={})
    for i in range(12)
]


def ids(part):
    return {subject.subject_id for subject in part}


def split(**changes):
    return split_subjects(SUBJECTS, DataConfig(cohort="x", **changes))


def test_parts_share_nobody_and_hold_their_counts():
    found = split(train=5, validation=2, test=4)
    assert [len(p) for p in (found.train, found.validation, found.test)] == [5, 2, 4]
    assert len(ids(found.train) | ids(found.validation) | ids(found.test)) == 11


def test_a_larger_training_holds_a_smaller_one_and_leaves_the_test_alone():
    few, many = split(train=1, test=4), split(train=6, test=4)
    assert ids(few.train) < ids(many.train)
    assert ids(few.test) == ids(many.test)
    assert ids(split(validation=3, test=4).test) == ids(few.test)


def test_all_that_are_left_train():
    assert len(split(test=4).train) == 8


def test_another_seed_draws_others_and_the_order_of_subjects_plays_no_part():
    assert ids(split(test=5).test) != ids(split(test=5, split_seed=1).test)
    turned = split_subjects(SUBJECTS[::-1], DataConfig(cohort="x", test=5))
    assert [s.subject_id for s in turned.test] == sorted(ids(split(test=5).test))


def test_named_subjects_are_taken_and_left_out_of_counts():
    found = split(train=("s03", "s07"), test=("s01",), validation=9)
    assert ids(found.train) == {"s03", "s07"}
    assert ids(found.validation) == {s.subject_id for s in SUBJECTS} - {"s01", "s03", "s07"}


def test_subjects_that_are_not_there_or_named_twice_are_refused():
    with pytest.raises(CardiogenError, match="CG-C29 data: found subject 's99', which the cohort"):
        split(train=("s99",))
    with pytest.raises(CardiogenError, match="CG-C29 data: found subject 's01', named twice"):
        split(train=("s01",), test=("s01",))
    with pytest.raises(CardiogenError, match=r"CG-C28 data\.train: found 2 subjects left for 3"):
        split(train=3, test=10)
