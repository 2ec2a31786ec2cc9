"""Names that people type, and where what they name lives.

Values are "module:attribute" strings, resolved on first use, so that listing names imports
nothing; "module:attribute/key" is an entry of a mapping. Other distributions add entries through
entry points of group `unspool.<kind>`.
"""

from __future__ import annotations

import difflib
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from unspool.errors import ConfigError

_TASK_ROOM = "unspool.evaluation.tasks"
# Benchmark: the names of its tasks, which its module's TASKS holds. A line a benchmark.
_TASKS = {
    "ada-leval": "bestanswer bestanswer_choice tsort tsort_choice",
    "booookscore": "annotations planted planted_choice",
    "giraffe": "altered freeform lines",
    "long-icl": (
        "banking77 dialogre discovery fewnerd goemotion modules modules_choice tacred "
        "tacred_grouped"
    ),
    "lv-eval": (
        "cmrc_mixup dureader_mixup factrecall_en factrecall_twin factrecall_zh hotpotwikiqa_mixup "
        "lic_mixup loogle_CR_mixup loogle_MIR_mixup loogle_SD_mixup mixup_twin mixup_twin_choice "
        "multifieldqa_en_mixup multifieldqa_zh_mixup"
    ),
    "needle-threading": (
        "single_needle single_needle_choice multiple_needles multiple_needles_clustered "
        "conditional_needles conditional_needles_clustered single_thread single_thread_backward "
        "single_thread_random single_thread_choice single_thread_backward_choice multi_thread "
        "branched_thread"
    ),
    "l-eval": (
        "cheap-judge-subset codeU coursera financial_qa gov_report_summ gsm100 human-subset "
        "judge-subset legal_contract_qa meeting_summ multidoc_qa narrative_qa natural_question "
        "news_summ paper_assistant patent_summ quality review_summ sci_fi scientific_qa "
        "topic_retrieval_longchat tpo tv_show_summ"
    ),
    "l-eval-twin": "summary topic_retrieval",
    "longbench": (
        "2wikimqa dureader gov_report hotpotqa lcc lsht multi_news multifieldqa_en "
        "multifieldqa_zh musique narrativeqa passage_count passage_retrieval_en "
        "passage_retrieval_zh qasper qmsum repobench-p samsum trec triviaqa vcsum"
    ),
    "longbench-e": (
        "2wikimqa gov_report hotpotqa lcc multi_news multifieldqa_en passage_count "
        "passage_retrieval_en qasper repobench-p samsum trec triviaqa"
    ),
    "longbench-retrieved": (
        "2wikimqa dureader hotpotqa multifieldqa_en multifieldqa_zh musique narrativeqa qasper"
    ),
    "longbench-twin": "lcc passage_count passage_retrieval repobench-p",
    "longbench-v2": "all",
    "m4le": (
        "arxiv bigpatent_global_cls bigpatent_global_sum booksum c3 cepsum clts+ cnewsum cnnnews "
        "drcd_explicit-single drcd_semantic-single duorc dureader hotpotqa lcsts marc "
        "mnds-news_explicit-multiple mnds-news_explicit-single mnds-news_semantic-multiple ncls "
        "news-commentary-en2zh news-commentary-zh2en news2016 newsqa nq-open online-shopping "
        "open-subtitles-en2zh open-subtitles-zh2en pubmed tedtalks-en2zh tedtalks-zh2en "
        "thucnews_explicit-multiple thucnews_explicit-single thucnews_semantic-multiple triviaqa "
        "wiki2019zh wikihow wikitext-103 wow"
    ),
    "m4le-twin": "explicit-multiple explicit-single global semantic-multiple semantic-single",
    "passkey": "choice digits loglikelihood",
    "ruler": (
        "cwe fwe niah_multikey_1 niah_multikey_2 niah_multikey_3 niah_multiquery niah_multivalue "
        "niah_single_1 niah_single_2 niah_single_3 qa_1 qa_2 vt"
    ),
    "nolima": "literal literal_choice onehop onehop_choice twohop twohop_choice",
    "babilong": "qa1 qa2 qa3 qa4 qa5 qa6 qa7 qa8",
    "mrcr": "2needle 4needle 8needle",
}

_TABLES: dict[str, dict[str, str]] = {
    "decode": {
        "step": "unspool.backends.decode:routed",
    },
    "layout": {
        "open": "unspool.layout:LayoutExtension",
    },
    "prompt": {
        "infini-retri": "unspool.reading.infini_retri:InfiniRetriReader",
        "stream": "unspool.reading.prompt_stream:PromptStream",
        "whole": "unspool.reading.whole:WholeReader",
        "xl3m": "unspool.reading.xl3m:XL3MReader",
    },
    "method": {
        "infini-retri": "unspool.reading.infini_retri:InfiniRetri",
        "xl3m": "unspool.reading.xl3m:XL3M",
        "dense": "unspool.methods:DenseMethod",
        "padding-free": "unspool.attention.padding_free.method:PaddingFree",
        "squeezed": "unspool.attention.squeezed:Squeezed",
        "snapkv": "unspool.caches.snapkv:SnapKV",
        "think": "unspool.caches.think:ThinK",
        "quantise": "unspool.caches.quantise:Quantise",
        "flash": "unspool.attention.flash.method:Flash",
        "dual-chunk": "unspool.attention.dual_chunk:DualChunk",
        "hip": "unspool.attention.hip.method:HiP",
        "hyper": "unspool.attention.hyper.method:HyperAttention",
        "infllm": "unspool.attention.infllm:InfLLM",
        "masformer": "unspool.attention.masformer:MASFormer",
        "ntk": "unspool.attention.ntk.method:NTK",
        "lm-infinite": "unspool.attention.lm_infinite:LMInfinite",
        "oracle-top-k": "unspool.attention.controls:OracleTopK",
        "random-blocks": "unspool.attention.controls:RandomBlocks",
        "self-extend": "unspool.attention.self_extend:SelfExtend",
        "streaming-llm": "unspool.attention.streaming:StreamingLLM",
        "giraffe-linear": "unspool.positions.rope:GiraffeLinear",
        "giraffe-power": "unspool.positions.rope:GiraffePower",
        "giraffe-truncated": "unspool.positions.rope:GiraffeTruncated",
        "alibi": "unspool.attention.alibi:Alibi",
        "softplus": "unspool.attention.softplus.method:Softplus",
        "rope": "unspool.positions.rope:Rope",
        "xpos": "unspool.attention.xpos:XPos",
    },
    "reader": {
        "bm25": "unspool.reading.bm25:Bm25Reader",
    },
    "task": {
        f"{benchmark}/{name}": f"{_TASK_ROOM}.{benchmark.replace('-', '_')}:TASKS/{name}"
        for benchmark, tasks in _TASKS.items()
        for name in tasks.split()
    },
}


def names(kind: str) -> list[str]:
    """Every name of a kind, sorted."""
    others = (entry.name for entry in entry_points(group=f"unspool.{kind}"))
    return sorted({*_TABLES.get(kind, {}), *others})


def resolve(kind: str, name: str) -> Any:
    """The object that a name stands for; an unknown name lists the nearest ones."""
    target = _TABLES.get(kind, {}).get(name)
    if target is not None:
        module, attribute = target.split(":")
        attribute, _, key = attribute.partition("/")
        value = getattr(import_module(module), attribute)
        return value[key] if key else value
    for entry in entry_points(group=f"unspool.{kind}"):
        if entry.name == name:
            return entry.load()
    known = names(kind)
    near = difflib.get_close_matches(name, known, n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
    raise ConfigError(f"There is no {kind} called {name!r}. {hint}")
