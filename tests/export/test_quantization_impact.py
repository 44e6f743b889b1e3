from edgex.export.quantization_impact import Budget, keep_within
from edgex.export.report import QuantizationImpact


def test_choice_keeps_the_most_damaging_products_per_operation() -> None:
    impacts = [
        QuantizationImpact("cheap", 0.0, 0.09, 10),
        QuantizationImpact("costly", 0.0, 0.09, 1000),
        QuantizationImpact("harmless", 0.0, 0.01, 1),
    ]
    assert [i.kept_float for i in keep_within(impacts, Budget(1.0, 0.1))] == [True, False, False]
    assert not any(i.kept_float for i in keep_within(impacts, Budget(1.0, 1.0)))
    assert [i.kept_float for i in keep_within(impacts, Budget(1.0, 0.02))] == [True, True, False]
