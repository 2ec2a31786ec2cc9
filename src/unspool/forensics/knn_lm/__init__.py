"""A datastore mixed into a model, and the examination that says whether it helps."""

from unspool.forensics.knn_lm.analyse import evaluate as evaluate
from unspool.forensics.knn_lm.analyse import generate as generate
from unspool.forensics.knn_lm.analyse import judge as judge
from unspool.forensics.knn_lm.datastore import Datastore as Datastore
from unspool.forensics.knn_lm.datastore import StoreSettings as StoreSettings
from unspool.forensics.knn_lm.datastore import build_store as build_store
from unspool.forensics.knn_lm.datastore import plan_store as plan_store
from unspool.forensics.knn_lm.generate import Continuing as Continuing
from unspool.forensics.knn_lm.hits import record_hits as record_hits
from unspool.forensics.knn_lm.mauve import mauve as mauve
from unspool.forensics.knn_lm.mixture import Mixture as Mixture
from unspool.forensics.knn_lm.ngram import NgramRetriever as NgramRetriever
from unspool.forensics.knn_lm.sheets import make_sheet as make_sheet
from unspool.forensics.knn_lm.sheets import score_sheets as score_sheets
from unspool.forensics.knn_lm.tokens import split_tokens as split_tokens
from unspool.forensics.knn_lm.tune import tune as tune
from unspool.forensics.knn_lm.windows import Reading as Reading
from unspool.forensics.knn_lm.windows import encode as encode
from unspool.forensics.knn_lm.wrap import KnnLM as KnnLM
from unspool.forensics.knn_lm.wrap import detach as detach
from unspool.forensics.knn_lm.wrap import wrap as wrap
