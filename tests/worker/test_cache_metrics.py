"""What the caches hold and found is in the metrics, under vLLM's names."""

from worker.engine.protocol import CacheStats
from worker.telemetry import _cache_metrics


def test_the_caches_figures_have_vllms_names():
    stats = CacheStats(
        kv_tokens=400,
        kv_used_tokens=100,
        prefix_queries=10,
        prefix_hits=7,
        image_queries=3,
        image_hits=2,
        image_bytes=64,
        preemptions=1,
    )
    shown = {s.name: s.value for family in _cache_metrics(stats) for s in family.samples}
    assert shown == {
        "paragone_worker_kv_cache_usage_perc": 0.25,
        "paragone_worker_kv_cache_tokens": 400,
        "paragone_worker_image_cache_bytes": 64,
        "paragone_worker_prefix_cache_queries_total": 10,
        "paragone_worker_prefix_cache_hits_total": 7,
        "paragone_worker_mm_cache_queries_total": 3,
        "paragone_worker_mm_cache_hits_total": 2,
        "paragone_worker_num_preemptions_total": 1,
    }


def test_a_cache_without_a_limit_has_no_share_of_it():
    shown = {s.name for family in _cache_metrics(CacheStats()) for s in family.samples}
    assert "paragone_worker_kv_cache_usage_perc" not in shown
