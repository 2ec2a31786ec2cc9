"""Facts that many models remember, as a sentence, a question and its answer.

A model that has seen them may answer without reading; with the number altered it must read.
"""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """A sentence to hide in a text, and what is asked about it."""

    sentence: str
    question: str
    answer: str


FREE_FORM = tuple(
    Fact(*row)
    for row in (
        (
            "The play Hamlet was written by William Shakespeare.",
            "Who wrote the play Hamlet?",
            "William Shakespeare",
        ),
        (
            "The telephone was patented by Alexander Graham Bell.",
            "Who patented the telephone?",
            "Alexander Graham Bell",
        ),
        ("The capital of Australia is Canberra.", "What is the capital of Australia?", "Canberra"),
        ("The capital of Canada is Ottawa.", "What is the capital of Canada?", "Ottawa"),
        (
            "The longest river of South America is the Amazon.",
            "What is the longest river of South America?",
            "Amazon",
        ),
        (
            "The Mona Lisa was painted by Leonardo da Vinci.",
            "Who painted the Mona Lisa?",
            "Leonardo da Vinci",
        ),
        (
            "The highest mountain above sea level is Mount Everest.",
            "What is the highest mountain above sea level?",
            "Mount Everest",
        ),
        (
            "Penicillin was discovered by Alexander Fleming.",
            "Who discovered penicillin?",
            "Alexander Fleming",
        ),
        (
            "The largest planet of the solar system is Jupiter.",
            "What is the largest planet of the solar system?",
            "Jupiter",
        ),
        (
            "The novel Don Quixote was written by Miguel de Cervantes.",
            "Who wrote the novel Don Quixote?",
            "Miguel de Cervantes",
        ),
        ("The currency of Japan is the yen.", "What is the currency of Japan?", "yen"),
        (
            "The first woman who won a Nobel Prize was Marie Curie.",
            "Who was the first woman who won a Nobel Prize?",
            "Marie Curie",
        ),
        (
            "The opera The Magic Flute was composed by Wolfgang Amadeus Mozart.",
            "Who composed the opera The Magic Flute?",
            "Wolfgang Amadeus Mozart",
        ),
        ("The capital of Kenya is Nairobi.", "What is the capital of Kenya?", "Nairobi"),
        (
            "The theory of general relativity was published by Albert Einstein.",
            "Who published the theory of general relativity?",
            "Albert Einstein",
        ),
        (
            "The largest desert of hot climate is the Sahara.",
            "What is the largest desert of hot climate?",
            "Sahara",
        ),
        (
            "The first person who walked on the Moon was Neil Armstrong.",
            "Who was the first person who walked on the Moon?",
            "Neil Armstrong",
        ),
        ("The capital of Norway is Oslo.", "What is the capital of Norway?", "Oslo"),
        (
            "The Brandenburg Gate stands in Berlin.",
            "In which city does the Brandenburg Gate stand?",
            "Berlin",
        ),
        (
            "The gas that plants take from the air is carbon dioxide.",
            "Which gas do plants take from the air?",
            "carbon dioxide",
        ),
    )
)

NUMERIC = tuple(
    Fact(*row)
    for row in (
        ("The Eiffel Tower was completed in 1889.", "When was the Eiffel Tower completed?", "1889"),
        (
            "Christopher Columbus first reached America in 1492.",
            "In which year did Columbus first reach America?",
            "1492",
        ),
        ("The Titanic sank in 1912.", "In which year did the Titanic sink?", "1912"),
        ("The Berlin Wall fell in 1989.", "In which year did the Berlin Wall fall?", "1989"),
        (
            "The Great Fire of London burned in 1666.",
            "In which year did the Great Fire of London burn?",
            "1666",
        ),
        (
            "The first crewed landing on the Moon was in 1969.",
            "In which year was the first crewed landing on the Moon?",
            "1969",
        ),
        (
            "The Magna Carta was sealed in 1215.",
            "In which year was the Magna Carta sealed?",
            "1215",
        ),
        ("The Battle of Hastings was fought in 1066.", "When was the Battle of Hastings?", "1066"),
        ("The Suez Canal was opened in 1869.", "In which year was the Suez Canal opened?", "1869"),
        (
            "The French Revolution began in 1789.",
            "In which year did the French Revolution begin?",
            "1789",
        ),
        (
            "Mount Everest is 8849 metres high by the survey of 2020.",
            "How many metres high is Mount Everest?",
            "8849",
        ),
        ("An adult human has 206 bones.", "How many bones does an adult human have?", "206"),
        (
            "A standard piano has 88 keys.",
            "How many keys does a standard piano have?",
            "88",
        ),
        (
            "Light travels 299,792 kilometres in a second.",
            "How many kilometres does light travel in a second?",
            "299,792",
        ),
        (
            "A marathon is 42.195 kilometres long.",
            "How many kilometres long is a marathon?",
            "42.195",
        ),
        ("Gold has the atomic number 79.", "What is the atomic number of gold?", "79"),
        (
            "The Danube flows for 2850 kilometres.",
            "For how many kilometres does the Danube flow?",
            "2850",
        ),
        (
            "A chessboard has 64 squares.",
            "How many squares does a chessboard have?",
            "64",
        ),
        (
            "The Burj Khalifa is 828 metres tall.",
            "How many metres tall is the Burj Khalifa?",
            "828",
        ),
        (
            "Lake Baikal is 1642 metres deep at most.",
            "How many metres deep is Lake Baikal at most?",
            "1642",
        ),
    )
)
