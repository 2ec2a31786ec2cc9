"""How long answers are: collected, described, cleaned, predicted, and used for scheduling."""

from unspool.forensics.lengths.collect import Collection as Collection
from unspool.forensics.lengths.collect import Question as Question
from unspool.forensics.lengths.collect import collect as collect
from unspool.forensics.lengths.collect import read_questions as read_questions
from unspool.forensics.lengths.predictor import Predictor as Predictor
from unspool.forensics.lengths.predictor import pinball as pinball
from unspool.forensics.lengths.rows import Row as Row
from unspool.forensics.lengths.rows import read_rows as read_rows
from unspool.forensics.lengths.sanitize import Filter as Filter
from unspool.forensics.lengths.sanitize import sanitize as sanitize
from unspool.forensics.lengths.simulate import Machine as Machine
from unspool.forensics.lengths.simulate import Request as Request
from unspool.forensics.lengths.simulate import simulate as simulate
from unspool.forensics.lengths.simulate import sustained as sustained
from unspool.forensics.lengths.stats import compare as compare
from unspool.forensics.lengths.stats import stats as stats
