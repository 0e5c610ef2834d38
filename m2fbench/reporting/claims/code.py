"""Code in a card, read and never run: names that the installed libraries do not have, and what a Mask2Former's classes cannot do.

The blocks are read as one session, in order. A name is followed only where it is plain what it is: an import, a text,
``X.from_pretrained(...)``, or the output of a model loaded so. All else is left alone.
"""

import ast
import functools
import json
import re
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from m2fbench.errors import shown
from m2fbench.models import api
from m2fbench.reporting.claims.document import MISSING, CodeBlock, Document
from m2fbench.reporting.claims.published_figures import checkpoint_named
from m2fbench.reporting.claims.subject import Subject
from m2fbench.reporting.claims.verdicts import Finding, Verdict

PYTHON = ("python", "py", "python3", "pycon", "ipython")
MAX_CODE = 200_000  # characters of a block
_KEPT = ("to", "eval", "cuda", "cpu", "half", "float", "bfloat16", "train", "requires_grad_")  # methods that give the model back


@dataclass(frozen=True)
class _Thing:
    """What a name stands for. kind: "module" or "member" (``value``: its dotted name), "text", "instance" (of the transformers class
    ``value``) or "output" (of a model of that class)."""

    kind: Literal["module", "member", "text", "instance", "output"]
    value: str


@dataclass
class _Session:
    document: Document
    subject: Subject
    names: dict[str, _Thing] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    line: int = 1  # of the block's first
    lines: list[str] = field(default_factory=list)

    def add(self, node: ast.AST, claim: str, verdict: Verdict, evidence: str) -> None:
        line, column = self.line + getattr(node, "lineno", 1) - 1, getattr(node, "col_offset", 0) + 1
        at = getattr(node, "lineno", 1) - 1
        quote = self.lines[at].strip() if at < len(self.lines) else ""
        finding = Finding("code", shown(claim), line, column, f"{line}:{column}", shown(quote, 200), verdict, evidence)
        told = verdict is Verdict.confirmed and any(f.claim == finding.claim and f.verdict is verdict for f in self.findings)
        if not told and finding not in self.findings:
            self.findings.append(finding)


def check_code(document: Document, subject: Subject) -> list[Finding]:
    """Every name of a known library that the card's Python uses, and what is wrong with the rest."""
    session = _Session(document, subject)
    for block in document.code:
        if block.language in PYTHON or (not block.language and re.match(r"\s{0,40}(?:>>> )?(?:import|from)\s+\w", block.text)):
            _check_block(session, block)
    return session.findings


def _check_block(session: _Session, block: CodeBlock) -> None:
    text = _as_module(block.text)
    session.line, session.lines = block.line, text.split("\n")
    if MISSING in block.text:
        at = next(k for k, line in enumerate(block.text.split("\n")) if MISSING in line)
        where = block.line + at
        session.findings.append(
            Finding(
                "code",
                "code",
                where,
                1,
                f"{where}:1",
                MISSING,
                Verdict.gap,
                f"the code has {MISSING} where something is needed for it to run",
            )
        )
        return
    if len(text) > MAX_CODE:
        session.add(ast.Module([], []), "code", Verdict.unverifiable, f"more than {MAX_CODE} characters of code: not read")
        return
    try:
        tree = ast.parse(text)
        _Reader(session).visit(tree)
    except SyntaxError as error:
        node = ast.Pass(lineno=error.lineno or 1, col_offset=max((error.offset or 1) - 1, 0))
        session.add(node, "code", Verdict.contradicted, f"no valid Python: {shown(error.msg, 80)}")
    except (RecursionError, MemoryError, ValueError):
        session.add(ast.Module([], []), "code", Verdict.unverifiable, "nested too deeply to be read")


def _as_module(text: str) -> str:
    """Code of a session or a notebook as a module, line by line: prompts and shell commands taken out, outputs too."""
    text = textwrap.dedent(text)
    lines = text.split("\n")
    if any(line.startswith(">>> ") for line in lines):
        lines = [line[4:] if line.startswith((">>> ", "... ")) else "" for line in lines]
    return "\n".join(re.sub(r"^(\s*)[!%].*", r"\1pass", line) for line in lines)


class _Reader(ast.NodeVisitor):
    """Goes through a block in the order in which it would run."""

    def __init__(self, session: _Session) -> None:
        self.session = session

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            if self._is_there(node, alias.name, "it"):
                self.session.names[alias.asname or top] = _Thing("module", alias.name if alias.asname else top)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        names = ", ".join(alias.name for alias in node.names)
        if node.level or not node.module:
            self.session.add(
                node,
                f"from {'.' * node.level}{node.module or ''} import {names}",
                Verdict.unverifiable,
                "a file beside the card's code; not part of the card",
            )
            return
        if not self._is_there(node, node.module, names):
            return
        for alias in node.names:
            self._member(node, node.module, alias.name)
            self.session.names[alias.asname or alias.name] = _Thing("member", f"{node.module}.{alias.name}")

    def _is_there(self, node: ast.AST, module: str, names: str) -> bool:
        """Whether a module can be imported, as far as can be told; reports where not."""
        top = module.partition(".")[0]
        if api.is_installed(top):
            if api.has_module(module) is False:
                self.session.add(node, module, Verdict.contradicted, f"{api.version(top)} has no module {module}")
                return False
            return True
        known = known_packages().get(top)
        if known is not None:
            self.session.add(
                node,
                module,
                Verdict.unverifiable,
                f"{top} (package {known}) is not installed here, so {shown(names)} is not looked up",
            )
            return False
        said = re.search(
            r"(?:pip3?|conda|uv|mamba)[ ](?:\w+[ ])?install[^\n]{0,200}|git\+http[^\n]{0,200}|git clone[^\n]{0,200}",
            self.session.document.text,
        )
        evidence = f"unknown package: {shown(top)} is not installed here and not a known one, so {shown(names)} cannot be imported as the card stands"
        if said is not None:
            self.session.add(
                node, module, Verdict.unverifiable, f"{evidence}; the card says how to install something ({shown(said[0], 60)})"
            )
        else:
            self.session.add(node, module, Verdict.contradicted, evidence)
        return False

    def _member(self, node: ast.AST, module: str, name: str) -> bool:
        """Whether a module of a known library has a name; reported either way. Those of other packages are left alone."""
        there = True if name == "*" else api.has(module, name)
        top = module.partition(".")[0]
        if there is False:
            near = f"; a Mask2Former is loaded by {api.UNIVERSAL}" if top == "transformers" and "Model" in name else ""
            self.session.add(node, f"{module}.{name}", Verdict.contradicted, f"{api.version(top)} has no {module}.{name}{near}")
            return False
        if there and top in ("transformers", "torch", "m2fbench"):
            self.session.add(node, f"{module}.{name}", Verdict.confirmed, f"{api.version(top)} has it")
        return True

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        thing = self._thing(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.session.names.pop(target.id, None)
                if thing is not None:
                    self.session.names[target.id] = thing
            else:
                for name in (n.id for n in ast.walk(target) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)):
                    self.session.names.pop(name, None)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        thing = self._thing(node.value)
        if thing is None or not isinstance(node.ctx, ast.Load):
            return
        if thing.kind == "module" and thing.value.partition(".")[0] in api.IMPORTED:
            self._member(node, thing.value, node.attr)
        elif thing.kind == "output":
            self._field(node, thing.value, node.attr)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.generic_visit(node)
        thing = self._thing(node.value)
        if (
            thing is not None
            and thing.kind == "output"
            and isinstance(node.slice, ast.Constant)
            and isinstance(node.slice.value, str)
        ):
            self._field(node, thing.value, node.slice.value)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute):
            if node.func.attr == "from_pretrained":
                self._loading(node, node.func.value)
                return
            thing = self._thing(node.func.value)
            cls = api.class_of(thing.value) if thing is not None and thing.kind == "instance" else None
            if cls is not None and thing is not None:
                self._method(node, cls, thing.value, node.func.attr)
        elif (thing := self._thing(node.func)) is not None and thing == _Thing("member", "transformers.pipeline"):
            self._pipeline(node)

    def _method(self, node: ast.AST, cls: type, said: str, name: str) -> None:
        if api.has_member(cls, name):
            self.session.add(node, f"{said}.{name}", Verdict.confirmed, f"{api.version('transformers')}: {cls.__name__} has it")
        else:
            like = [m for m in dir(cls) if m.startswith("post_process")]
            others = f"; it has {', '.join(like)}" if name.startswith("post_process") and like else ""
            self.session.add(
                node, f"{said}.{name}", Verdict.contradicted, f"{api.version('transformers')}: {cls.__name__} has no {name}{others}"
            )

    def _field(self, node: ast.AST, said: str, name: str) -> None:
        cls = api.class_of(said)
        fields = api.output_fields(cls) if cls is not None else None
        if fields is None:
            return
        if name in fields[1]:
            self.session.add(node, f"outputs.{name}", Verdict.confirmed, f"{api.version('transformers')}: {fields[0]} has it")
        else:
            evidence = (
                f"{api.version('transformers')}: {fields[0]} has no {name}; it has class_queries_logits and masks_queries_logits"
            )
            self.session.add(node, f"outputs.{name}", Verdict.contradicted, evidence)

    def _loading(self, node: ast.Call, loader: ast.expr) -> None:
        """``X.from_pretrained(...)``: whether X loads a Mask2Former, and whether it is the card's checkpoint that is loaded."""
        thing = self._thing(loader)
        reference = self._text(node.args[0]) if node.args else None
        if thing is None or not thing.value.startswith("transformers.") or thing.kind != "member":
            return
        name = thing.value.rpartition(".")[2]
        if name.startswith("Auto") and self._is_mask2former(reference) and api.has("transformers", name):
            loads, purpose = api.loads_mask2former(name)
            if not loads:
                instead = "AutoImageProcessor" if name in ("AutoTokenizer", "AutoFeatureExtractor") else api.UNIVERSAL
                claim = f"{name}.from_pretrained({shown(reference or '...', 60)})"
                evidence = f"{api.version('transformers')}: {name} has nothing for Mask2Former (it is for {purpose}); {instead} has"
                self.session.add(node, claim, Verdict.contradicted, evidence)
        self._reference(node, reference)

    def _reference(self, node: ast.AST, reference: str | None) -> None:
        subject = self.session.subject
        loaded = checkpoint_named(reference) if reference else None
        if loaded is None or not subject.published or subject.task is None:
            return
        if loaded == (subject.backbone, subject.dataset, subject.task):
            self.session.add(node, f"loads {reference}", Verdict.confirmed, "the card's model")
        else:
            self.session.add(node, f"loads {reference}", Verdict.not_this, f"the card is about {subject.name}")

    def _is_mask2former(self, reference: str | None) -> bool:
        """Whether what is loaded is known to be a Mask2Former: by its name, or as the model of a card that speaks of one."""
        if reference is None:
            return False
        own = reference == self.session.subject.name and "mask2former" in self.session.document.text.casefold()
        return own or "mask2former" in reference.casefold()

    def _pipeline(self, node: ast.Call) -> None:
        task = (
            self._text(node.args[0]) if node.args else next((self._text(k.value) for k in node.keywords if k.arg == "task"), None)
        )
        if task is None:
            return
        tasks = api.pipeline_tasks()
        if task in tasks:
            self.session.add(node, f'pipeline("{task}")', Verdict.confirmed, f"{api.version('transformers')} has it")
        else:
            like = ", ".join(sorted(t for t in tasks if "segmentation" in t))
            self.session.add(
                node,
                f'pipeline("{task}")',
                Verdict.contradicted,
                f"{api.version('transformers')} has no such task; for this model: {like}",
            )

    def _text(self, node: ast.expr) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        thing = self._thing(node)
        return thing.value if thing is not None and thing.kind == "text" else None

    def _thing(self, node: ast.expr) -> _Thing | None:
        """What an expression is, where that is plain."""
        if isinstance(node, ast.Name):
            return self.session.names.get(node.id)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return _Thing("text", node.value)
        if isinstance(node, ast.Attribute):
            of = self._thing(node.value)
            if of is not None and of.kind == "module":
                dotted = f"{of.value}.{node.attr}"
                return _Thing("module" if api.has_module(dotted) and node.attr.islower() else "member", dotted)
            return None
        return self._called(node) if isinstance(node, ast.Call) else None

    def _called(self, node: ast.Call) -> _Thing | None:
        if isinstance(node.func, ast.Attribute):
            of = self._thing(node.func.value)
            if (
                of is not None
                and of.kind == "member"
                and node.func.attr == "from_pretrained"
                and of.value.startswith("transformers.")
            ):
                name = of.value.rpartition(".")[2]
                known = name.startswith("Mask2Former") or self._is_mask2former(self._text(node.args[0]) if node.args else None)
                return _Thing("instance", name) if known else None
            return of if of is not None and of.kind == "instance" and node.func.attr in _KEPT else None
        of = self._thing(node.func)
        if of is not None and of.kind == "instance" and re.search(r"Model|ForUniversal", of.value):
            return _Thing("output", of.value)
        if of is not None and of.kind == "member" and re.fullmatch(r"transformers\.Mask2Former\w*", of.value):
            return _Thing("instance", of.value.rpartition(".")[2])
        return None


@functools.cache
def known_packages() -> dict[str, str]:
    """Import name -> what to install, of packages that such code often uses."""
    found: dict[str, str] = json.loads((Path(__file__).parent / "known_packages.json").read_text())
    return found
