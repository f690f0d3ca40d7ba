"""Modelfiles, and the models made from them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.manifests import make_manifest
from quintet.errors import (
    ModelFormatError,
    ModelNotFoundError,
    RequestError,
    UnsupportedModelError,
)
from quintet.hub.create import base_model, create, local_model
from quintet.hub.modelfile import (
    checked_parameters,
    is_go_template,
    parse_modelfile,
    render_modelfile,
)
from quintet.hub.packaged import packaged_models
from quintet.hub.store import Store

DEMO = packaged_models()["demo"]


def test_the_example_of_ollamas_documentation() -> None:
    """Comments, a bare system prompt, numbers."""
    modelfile = parse_modelfile(
        "FROM llama3.2\n"
        "# sets the temperature to 1\n"
        "PARAMETER temperature 1\n"
        "PARAMETER num_ctx 4096\n"
        "\n"
        "SYSTEM You are Mario from super mario bros, acting as an assistant.\n"
    )
    assert modelfile.base == "llama3.2"
    assert modelfile.parameters == {"temperature": 1.0, "num_ctx": 4096}
    assert modelfile.system == "You are Mario from super mario bros, acting as an assistant."
    assert modelfile.warnings == []


def test_the_example_of_our_documentation() -> None:
    """What docs/models-store.md shows is a Modelfile."""
    page = (Path(__file__).parents[2] / "docs" / "models-store.md").read_text()
    text = page.partition("## Modelfiles\n\n```text\n")[2].partition("```")[0]
    modelfile = parse_modelfile(text)
    assert modelfile.base == "qwen3:0.6b"
    assert modelfile.parameters == {"temperature": 0.6, "stop": ["User:", "Reader:"]}
    assert len(modelfile.messages) == 2
    assert modelfile.warnings == []


def test_every_instruction() -> None:
    """Any case, any quotes, several lines, several stops."""
    modelfile = parse_modelfile(
        'from "./model.gguf"\r\n'
        'Parameter stop "<|im_end|>"\n'
        'PARAMETER\tstop """User: """\n'
        "PARAMETER use_mmap true\n"
        "PARAMETER seed -1\n"
        'template """{% for m in messages %}\n  {{ m.content }}  \n{% endfor %}"""\n'
        'SYSTEM "one\n# no comment\ntwo"\n'
        "MESSAGE user Is Toronto in Canada?\n"
        'MESSAGE Assistant """yes,\nit is"""\n'
        "LICENSE MIT\n"
        'LICENSE """and\nmore"""   \n'
        "REQUIRES 0.14.0\n"
    )
    assert modelfile.base == "./model.gguf"
    assert modelfile.parameters == {
        "use_mmap": True,
        "seed": -1,
        "stop": ["<|im_end|>", "User: "],
    }
    assert modelfile.template == "{% for m in messages %}\n  {{ m.content }}  \n{% endfor %}"
    assert modelfile.system == "one\n# no comment\ntwo"
    assert modelfile.messages == [
        {"role": "user", "content": "Is Toronto in Canada?"},
        {"role": "assistant", "content": "yes,\nit is"},
    ]
    assert modelfile.license == "MIT\nand\nmore"
    assert modelfile.warnings == ["line 18: REQUIRES has no meaning here"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected FROM"),
        ("SYSTEM x", "line 1: expected FROM"),
        ("FROM", "line 1: expected a value"),
        ("FROM a\nFROM b", "line 2: FROM is there twice"),
        ("FROM a\n\nHELLO b", "line 3: expected one of FROM.*found 'HELLO'"),
        ('FROM a\nSYSTEM """x\ny', 'line 2: SYSTEM: expected """ at the end'),
        ('FROM a\nSYSTEM "', 'line 2: SYSTEM: expected " at the end'),
        ('FROM a\nSYSTEM """', 'line 2: SYSTEM: expected """ at the end'),
        ("FROM a\nSYSTEM", "line 2: expected a value"),
        ("FROM a\nPARAMETER temprature 1", "line 2: temprature: unknown parameter"),
        ("FROM a\nPARAMETER temperature hot", "line 2: temperature: expected a number"),
        ("FROM a\nPARAMETER temperature nan", "line 2: temperature: expected a finite number"),
        ("FROM a\nPARAMETER num_ctx 1.5", "line 2: num_ctx: expected a whole number"),
        (f"FROM a\nPARAMETER seed {2**63}", "line 2: seed: expected a whole number"),
        ("FROM a\nPARAMETER use_mmap maybe", "line 2: use_mmap: expected true or false"),
        ("FROM a\nPARAMETER temperature", "line 2: expected a value"),
        ("FROM a\nPARAMETER", "line 2: expected a value"),
        ("FROM a\nMESSAGE robot hi", "line 2: MESSAGE: expected one of system, user"),
        ("FROM a\nMESSAGE user", "line 2: expected a value"),
        ("FROM a\n" + "#" * (4 * 2**20), "expected at most"),
    ],
)
def test_what_is_no_modelfile(text: str, message: str) -> None:
    """Said with the line."""
    with pytest.raises(RequestError, match=message) as caught:
        parse_modelfile(text)
    assert caught.value.parameter == "modelfile"


def test_adapters_are_not_there() -> None:
    """Refused rather than ignored: the model would answer differently."""
    with pytest.raises(UnsupportedModelError, match="Modelfile instruction 'ADAPTER'"):
        parse_modelfile("FROM a\nADAPTER ./lora.gguf")


@pytest.mark.parametrize(
    ("template", "is_go"),
    [
        ("{{ .Prompt }}", True),
        ("{{- if .System }}<s>{{ .System }}{{ end }}", True),
        ("{{ range .Messages }}{{ .Content }}{{ end }}", True),
        ("{{$last := 1}}", True),
        ("{{- end }}", True),
        ("{{ messages[0].content }}", False),
        ("{% if messages %}{{ bos_token }}{% endif %}", False),
        ("{{ end_of_text }}", False),
        ("plain", False),
    ],
)
def test_go_templates_are_left_out(template: str, is_go: bool) -> None:
    """The file's own template is the same in Jinja; that it is used is said."""
    assert is_go_template(template) == is_go
    modelfile = parse_modelfile(f'FROM a\nTEMPLATE """{template}"""')
    assert (modelfile.template is None) == is_go
    assert any("Go's template language" in warning for warning in modelfile.warnings) == is_go


TEXTS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\x85\u2028\u2029\x0b\x0c"),
    max_size=30,
)


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=2), st.integers(-(2**31), 2**31), st.floats(0, 2))
def test_what_is_written_is_read_back(
    system: str, content: str, stop: list[str], seed: int, temperature: float
) -> None:
    """A Modelfile that was shown makes the same model again."""
    parameters: dict[str, object] = {"seed": seed, "temperature": temperature}
    if stop:
        parameters["stop"] = stop
    manifest = make_manifest(
        "a:b",
        Path("/models/a.gguf"),
        system=system,
        template=f"{{% x %}}{content}",
        parameters=parameters,
        messages=({"role": "user", "content": content},),
    )
    text = render_modelfile(manifest)
    if "cannot be written in quotes" in text:
        assert '"\n' in system + "\n" + content + "\n".join(stop)
        return
    modelfile = parse_modelfile(text)
    assert modelfile.base == "/models/a.gguf"
    assert modelfile.system == system
    assert modelfile.messages == [{"role": "user", "content": content}]
    assert modelfile.parameters == parameters
    if not is_go_template(content):
        assert modelfile.template == manifest.template


@pytest.mark.parametrize(
    "given_values",
    [
        {"temperature": "1"},
        {"temperature": True},
        {"num_ctx": 1.5},
        {"seed": True},
        {"stop": 5},
        {"stop": ["a", 5]},
        {"use_mmap": 1},
        {"temperature": float("inf")},
        {"x": 1},
    ],
)
def test_parameters_of_requests_have_types(given_values: dict[str, object]) -> None:
    """The same rules as in a file, named by the parameter."""
    with pytest.raises(RequestError) as caught:
        checked_parameters(given_values)
    assert caught.value.parameter == next(iter(given_values))


def test_parameters_of_requests() -> None:
    """A whole number will do for a number."""
    given_values = {"temperature": 1, "num_ctx": 8, "stop": ["a"], "use_mmap": False}
    assert checked_parameters(given_values) == given_values


def test_a_model_made_from_another(store: Store) -> None:
    """Weights in place, defaults on top, step by step."""
    mario = create(
        store,
        "mario",
        store.get("demo"),
        system="It's-a me",
        parameters={"temperature": 0.5, "seed": 1},
        messages=[{"role": "user", "content": "hi"}],
    )
    assert store.get("mario") == mario
    assert (mario.path, mario.parent) == (DEMO, "demo:latest")
    assert mario.digest == hashlib.sha256(DEMO.read_bytes()).hexdigest()
    luigi = create(store, "luigi:2", mario, system="Luigi", parameters={"seed": 2})
    assert luigi.parameters == {"temperature": 0.5, "seed": 2}
    assert luigi.messages == mario.messages
    assert luigi.system == "Luigi"
    store.delete("mario")
    store.delete("luigi:2")
    assert DEMO.exists()


def test_models_from_local_files(store: Store, tmp_path: Path) -> None:
    """A file is looked at before it gets a name; two models of one file are two models."""
    file = tmp_path / "copy.gguf"
    file.write_bytes(DEMO.read_bytes())
    base = base_model(store, "copy.gguf", tmp_path)
    assert base == dataclasses.replace(local_model(file), modified_at=base.modified_at)
    one, other = create(store, "one", base), create(store, "two", base, system="x")
    assert one.path == file
    assert one.size_bytes == DEMO.stat().st_size
    assert one.digest != other.digest
    (tmp_path / "bad.gguf").write_bytes(b"GGUX")
    with pytest.raises(ModelFormatError, match=r"bad\.gguf"):
        base_model(store, "./bad.gguf", tmp_path)
    with pytest.raises(ModelFormatError, match=r"config\.json and \*\.safetensors"):
        base_model(store, str(tmp_path), tmp_path)


def test_models_from_folders(store: Store, tmp_path: Path) -> None:
    """A folder with a configuration and weights is a model."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345")
    assert base_model(store, ".", tmp_path).size_bytes == 5
    assert base_model(store, ".", tmp_path).path == tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./missing.gguf", "no such file or folder"),
        ("/missing/../x", "no such file or folder"),
        ("qwen3:0.6b", r"quintet pull qwen3:0\.6b"),
        ("hf.co/user/repo", r"quintet pull hf\.co/user/repo"),
    ],
)
def test_what_is_not_there_to_make_a_model_from(
    store: Store, tmp_path: Path, text: str, message: str
) -> None:
    """A path is said to be missing, a model to be downloaded first."""
    with pytest.raises(ModelNotFoundError, match=message):
        base_model(store, text, tmp_path)
