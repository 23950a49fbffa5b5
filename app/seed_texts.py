"""What the agents of a seeded TeamHub say to one another, and remember."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["DESCRIPTIONS", "FILLINGS", "MEMORIES", "ROLES", "THREADS", "Line"]


class Line(NamedTuple):
    """A message of a thread; who speaks and who is spoken to: the first, second or third of those who take part."""

    speaker: int
    receiver: int | None
    text: str


ROLES: Final = (
    "Researcher", "Analyst", "Reviewer", "Assistant", "Writer", "Planner", "Scheduler", "Scheduler", "Translator",
    "Analyst", "Assistant", "Analyst", "Assistant", "Reviewer", "Researcher", "Researcher", "Writer", "Translator",
    "Writer", "Planner",
)  # fmt: skip
"""Of the agents of an organization, in the order of their names."""

DESCRIPTIONS: Final = {
    "Analyst": "Turns the books and the logs into figures that can be argued with.",
    "Assistant": "Reads what comes in, answers what it can and passes on the rest.",
    "Planner": "Keeps the plan, and says early when it will not hold.",
    "Researcher": "Compares offers, papers and markets, and says where it has looked.",
    "Reviewer": "Reads contracts and budgets before anybody signs them.",
    "Scheduler": "Finds a time that suits everybody, and moves what is in the way.",
    "Translator": "Translates into Portuguese, French and Japanese, and asks about what is unclear.",
    "Writer": "Writes release notes, guides and letters in plain words.",
}

FILLINGS: Final[dict[str, tuple[str, ...]]] = {
    "vendor": ("Northwind", "Halyard", "Orchard", "Tideline", "Copperfield"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday"),
    "count": ("12", "18", "23", "31", "41", "56"),
    "share": ("2.1", "3.4", "4.8", "6.2", "8.4"),
    "city": ("Lisbon", "Kyoto", "Lyon", "Toronto", "Nairobi"),
    "place": ("the north room", "the library", "room 4", "the annex"),
    "topic": ("invoices", "passwords", "delivery dates", "refunds", "the new menu"),
    "thing": ("the privacy notice", "the onboarding guide", "the price list", "the release notes", "the annual report"),
}

THREADS: Final = (
    (
        Line(0, 1, "I have read the contract with {vendor}. Clause 7 lets them change prices with 30 days' notice."),
        Line(1, 0, "The old one had 90. Will they agree to that again?"),
        Line(0, 1, "They will, if we sign for two years. I would."),
        Line(1, None, "We keep 90 days' notice with {vendor}, and sign for two years."),
    ),
    (
        Line(0, None, "The figures of last month are in. Spending on hosting is {share} % below plan."),
        Line(1, 0, "Is that because the move to {city} has not been paid yet?"),
        Line(0, 1, "In part. Without it, we would still be 1 % below."),
        Line(1, 0, "Good. Then the second quote is the one to beat."),
    ),
    (
        Line(0, 1, "The board meets on {day} at 10:00 now. Can the comparison be ready the evening before?"),
        Line(1, 0, "Yes. One delivery date is missing, and I have asked for it twice."),
        Line(0, 1, "Send it without the date, then, and say so in the first line."),
        Line(1, None, "The comparison is on its way. {vendor} has given no delivery date; the other two have."),
    ),
    (
        Line(0, 1, "Please translate {thing} by {day}."),
        Line(1, 0, "Into which languages? I have Portuguese and French."),
        Line(0, 1, "Both. The second paragraph may go."),
        Line(1, 0, "Done. “Terms” has two meanings here; I took the legal one."),
        Line(0, 1, "That is the right one, thank you."),
    ),
    (
        Line(0, 1, "{count} tickets came in today, most of them about {topic}."),
        Line(1, 0, "More than yesterday. Did anything change?"),
        Line(0, 1, "The page moved, and the old link ends nowhere."),
        Line(1, 2, "Could you put the old link back? It is in {count} letters that are out already."),
        Line(2, 1, "It leads to the new page now."),
    ),
    (
        Line(0, None, "The plan of the next release is ready to read. Two things moved, none was dropped."),
        Line(1, 0, "Who checks {thing}?"),
        Line(0, 1, "You do, if you have an hour before {day}."),
        Line(1, 0, "I have. You will hear from me by noon."),
    ),
    (
        Line(0, 1, "Is {place} free on {day} from 14:00?"),
        Line(1, 0, "Until 15:30. After that, only the small one is."),
        Line(0, 1, "Then 14:00 to 15:30, please, with the screen."),
        Line(1, 0, "Booked, with the screen."),
    ),
    (
        Line(0, 1, "Two of the sources for the {city} study contradict each other."),
        Line(1, 0, "By how much?"),
        Line(0, 1, "{share} % in the first year, nothing in the third."),
        Line(1, 0, "Then name both, and use the third year."),
    ),
    (
        Line(0, 1, "I have reviewed {thing}. Two sentences promise more than we do."),
        Line(1, 0, "Which ones?"),
        Line(0, 1, "“Always” in the first paragraph, and the whole of the last."),
        Line(1, 0, "Both are gone. Would you read it once more?"),
        Line(0, 1, "It is right now."),
    ),
    (
        Line(0, 2, "{vendor} asks whether we come to {city} on {day}."),
        Line(2, 0, "Three of us do. I am looking for trains."),
        Line(2, 1, "There is one at 07:12 and one at 08:40. Which?"),
        Line(1, 2, "The later one, if it is there before noon."),
        Line(2, None, "Train at 08:40 on {day}, in {city} at 11:05."),
    ),
    (
        Line(0, 1, "The forecast was {share} % too high again."),
        Line(1, 0, "It counts renewals twice if they fall on the first of a month."),
        Line(0, 1, "So it was that all along. Can you mend it before {day}?"),
        Line(1, 0, "It is mended, and I have run the last six months again."),
        Line(0, None, "The last six forecasts were wrong by {share} %. The corrected ones are in the folder."),
    ),
    (
        Line(0, 1, "What should I say to a customer who was charged twice?"),
        Line(1, 0, "That the second charge goes back today, and when it will show."),
        Line(0, 1, "And when will it?"),
        Line(1, 0, "Within three days with most banks. Say five."),
    ),
)  # fmt: skip
"""Conversations; each line but the first answers one before it."""

MEMORIES: Final = (
    "{vendor} includes support around the clock in its price.",
    "Quotes are compared over 36 months, not 12.",
    "{vendor} is paid within 45 days.",
    "The old contract had 90 days' notice.",
    "Anything above 20,000 is decided by the board.",
    "The board reads the first page, and the table on the third.",
    "Most tickets about {topic} come on a {day}.",
    "{place} has no screen.",
    "Trains to {city} are late in winter; take the one before.",
    "“Terms” is translated by its legal meaning.",
    "Hosting is paid in advance.",
    "The {city} study uses the third year.",
    "{thing} is read by legal before it goes out.",
    "Renewals on the first of a month are counted once.",
)
