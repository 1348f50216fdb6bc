"""An ONNX model is loaded when it is nothing but a graph of known operators."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bedplate.bundle.onnx import check
from tests.laws import examples

FLOAT = TensorProto.FLOAT


def model(*nodes, opsets=(("", 17),), initializers=(), functions=()):
    nodes = nodes or (helper.make_node("Relu", ["x"], ["y"]),)
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, [None, 4])],
        [helper.make_tensor_value_info("y", FLOAT, [None, 4])],
        initializer=list(initializers),
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid(*opset) for opset in opsets], functions=list(functions)
    )


def weights(**fields):
    tensor = helper.make_tensor("w", FLOAT, [2], [1.0, 2.0])
    for name, value in fields.items():
        setattr(tensor, name, value)
    return tensor


def refused(proto, match):
    with pytest.raises(ValueError, match=match):
        check(proto.SerializeToString())


def branch(node):
    inner = helper.make_graph([node], "inner", [], [helper.make_tensor_value_info("y", FLOAT, [None, 4])])
    return helper.make_node("If", ["c"], ["y"], then_branch=inner)


def test_graphs_of_known_operators_pass():
    check(model().SerializeToString())
    check(model(initializers=[weights()]).SerializeToString())
    check(model(branch(helper.make_node("Relu", ["x"], ["y"]))).SerializeToString())
    check(model(opsets=[("", 17), ("ai.onnx.ml", 3)]).SerializeToString())


def test_a_tree_ensemble_passes_quickly_and_foreign_parts_behind_its_numbers_are_seen():
    values = [0.5] * 200_000
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        nodes_values=values,
        nodes_nodeids=list(range(200_000)),
    )
    good = model(node, opsets=[("", 17), ("ai.onnx.ml", 3)])
    check(good.SerializeToString())

    tensor = good.graph.node[0].attribute.add(name="t").t
    tensor.data_location = TensorProto.EXTERNAL
    refused(good, "external data")


def test_external_data_is_refused_wherever_it_stands():
    outside = weights(data_location=TensorProto.EXTERNAL)
    entry = outside.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"

    refused(model(initializers=[outside]), "external data")
    refused(model(helper.make_node("Constant", [], ["y"], value=outside)), "external data")
    refused(model(branch(helper.make_node("Constant", [], ["y"], value=outside))), "external data")

    named_only = weights()
    named_only.external_data.add(key="location", value="x")
    refused(model(initializers=[named_only]), "external data")


@pytest.mark.parametrize("domain", ["com.microsoft", "ai.onnx.contrib", "ai.onnx.training", "evil"])
def test_foreign_operators_are_refused(domain):
    refused(model(opsets=[("", 17), (domain, 1)]), "operators of")
    refused(model(helper.make_node("Run", ["x"], ["y"], domain=domain)), "operators of")
    refused(model(branch(helper.make_node("Run", ["x"], ["y"], domain=domain))), "operators of")


def test_functions_of_the_model_itself_may_be_used_and_are_checked():
    def function(node):
        return helper.make_function("own", "Double", ["x"], ["y"], [node], [helper.make_opsetid("", 17)])

    use = helper.make_node("Double", ["x"], ["y"], domain="own")
    opsets = [("", 17), ("own", 1)]

    check(
        model(use, opsets=opsets, functions=[function(helper.make_node("Add", ["x", "x"], ["y"]))]).SerializeToString()
    )
    foreign = function(helper.make_node("Run", ["x"], ["y"], domain="com.microsoft"))
    refused(model(use, opsets=opsets, functions=[foreign]), "operators of")


def test_training_code_and_unknown_parts_are_refused():
    trained = model()
    trained.training_info.add()
    refused(trained, "not known here")

    with pytest.raises(ValueError, match="not known here"):
        check(model().SerializeToString() + b"\xfa\x3f\x00")


def test_bottomless_graphs_are_refused():
    node = helper.make_node("Relu", ["x"], ["y"])
    for _ in range(20):
        node = branch(node)

    refused(model(node), "nested")


def test_two_graphs_are_refused():
    once = model().SerializeToString()

    with pytest.raises(ValueError, match="two graphs"):
        check(once + once)


@examples(60)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=3))
def test_damage_never_crashes(position, damage):
    data = model(initializers=[weights()]).SerializeToString()
    position %= len(data)
    try:
        check(data[:position] + damage + data[position + len(damage) :])
    except ValueError:
        return
