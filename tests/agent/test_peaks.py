"""`mfu` needs the FLOPs of a token and the peak of the card; without either it is absent."""

import pytest
from holter.node.peaks import flops_ratio, peak_of


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H20", 148e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12),
        ("Tesla T4", 65e12),
        ("NVIDIA Z999", None),
        ("", None),
    ],
)
def test_the_more_particular_name_wins(name, peak):
    assert peak_of(name) == peak


def test_the_ratio_is_of_the_ranks_own_card(tmp_path):
    for index, name in enumerate(["NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"]):
        (tmp_path / f"0000:0{index}:00.0").mkdir()
        (tmp_path / f"0000:0{index}:00.0" / "information").write_text(f"Model: \t\t {name}\nIRQ: 1\n")
    assert flops_ratio({"flops_per_token": 989e9, "local_rank": 1}, tmp_path) == pytest.approx(1e-3)
    assert flops_ratio({"flops_per_token": 1e9, "peak_flops": 1e12}, tmp_path) == pytest.approx(1e-3)
    assert flops_ratio({"local_rank": 1}, tmp_path) is None
    assert flops_ratio({"flops_per_token": "many"}, tmp_path / "none") is None
