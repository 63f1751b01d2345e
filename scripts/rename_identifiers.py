"""Rename identifiers by sub-word, report collisions. python names.py ROOT [--apply]"""
import ast, io, keyword, pathlib, re, sys, tokenize, collections
root = pathlib.Path(sys.argv[1]); apply = "--apply" in sys.argv
# exact names first, then sub-words (word -> word), each optionally limited to paths matching a regex
EXACT = [
    ("Picture", "ImageArray", ""), ("Labelled", "LabeledSample", ""), ("LabelledPicture", "LabeledImage", ""),
    ("Keeper", "CheckpointManager", ""), ("keeper", "checkpoints", r"engine/"), ("Recorder", "RunLogger", ""), ("recorder", "logger", r"engine/"),
    ("Wishes", "StudyConfig", ""), ("wishes", "config", r"study|fewshot|settings"), ("wishes_of", "study_config", ""),
    ("hollow", "without_storage", ""), ("_film", "_demo_video", ""), ("film", "video", r"digits"),
    ("mend", "repair", ""), ("mend_alexnet", "repair_alexnet", ""), ("learn", "trainable", r"heads/"), ("_learning", "_trainable", ""),
    ("learns", "is_trained", ""), ("set_arm", "set_variant", ""), ("refuse_clash", "refuse_conflict", ""), ("clash", "conflict", ""),
    ("told_by", "reported_by", ""), ("timm_place", "timm_path", ""), ("start_towers", "initialize_towers", ""),
    ("StartWeights", "InitialWeights", ""), ("start_weights", "initial_weights", ""), ("load_start", "load_initial", ""), ("open_start", "open_initial", ""),
    ("check_start", "check_initial", ""), ("saved_start", "saved_initial", ""),
    ("Cell", "Group", r"study"), ("cell", "group", r"study"), ("cells", "groups", r"study"), ("cells_of", "groups_of", ""),
    ("find_parts", "find_splits", ""), ("write_part", "write_split", ""),
]
WORDS = [("picture", "image", ""), ("pictures", "images", ""), ("Picture", "Image", ""), ("Pictures", "Images", ""),
    ("labelled", "labeled", ""), ("Labelled", "Labeled", ""), ("colour", "color", ""), ("arm", "variant", ""), ("arms", "variants", ""), ("Arm", "Variant", ""),
    ("mended", "repaired", ""), ("learnt", "learned", "")]
def rename(name, path):
    for a, b, where in EXACT:
        if name == a and re.search(where, path): return b
    out = name
    for a, b, where in WORDS:
        if re.search(where, path):
            out = re.sub(rf"(?<![a-zA-Z]){a}(?![a-z])" if a[0].islower() else rf"{a}(?![a-z])", b, out)
    out = re.sub(r'_a_image', '_an_image', out); out = re.sub(r'_an_variant', '_a_variant', out)
    return out
def scopes(tree):
    for n in ast.walk(tree):
        if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Module, ast.ClassDef)): yield n
def names_in(n):
    got = collections.Counter()
    def visit(x, top):
        if not top and isinstance(x, (ast.FunctionDef, ast.ClassDef)) and isinstance(n, (ast.Module, ast.ClassDef)):
            got[x.name] += 1; return
        if isinstance(x, ast.Name): got[x.id] += 1
        elif isinstance(x, ast.arg): got[x.arg] += 1
        elif isinstance(x, ast.alias): got[(x.asname or x.name).split(".")[0]] += 1
        elif isinstance(x, (ast.FunctionDef, ast.ClassDef)) and not top: got[x.name] += 1
        elif isinstance(x, ast.AnnAssign) and isinstance(x.target, ast.Name): got[x.target.id] += 1
        for c in ast.iter_child_nodes(x): visit(c, False)
    visit(n, True); return got
total, conflicts, seen = 0, [], collections.Counter()
files = [p for d in ("tldet", "tests", "configs", "tools", "benchmarks", "examples", "data") for p in (root / d).rglob("*.py") if (root / d).exists()]
attrs_old = set()
for p in files:
    rel = str(p.relative_to(root)); src = p.read_text(); tree = ast.parse(src)
    for s in scopes(tree):
        got = names_in(s)
        for name in got:
            new = rename(name, rel)
            if new != name and (new in got):
                conflicts.append(f"{rel}:{getattr(s, 'lineno', 1)} {getattr(s, 'name', 'module')}: {name} -> {new}")
    lines = src.splitlines(keepends=True); edits = []
    for t in tokenize.generate_tokens(io.StringIO(src).readline):
        if t.type == tokenize.NAME and not keyword.iskeyword(t.string):
            new = rename(t.string, rel)
            if new != t.string: edits.append((t.start, t.end, new)); seen[f"{t.string} -> {new}"] += 1
    total += len(edits)
    if apply:
        for (r, c), (_, e), new in reversed(edits):
            l = lines[r - 1]; lines[r - 1] = l[:c] + new + l[e:]
        p.write_text("".join(lines))
print(total, "renames"); print("\n".join(conflicts)); 
if "-v" in sys.argv: print("\n".join(f"{k} {v}" for k, v in seen.most_common()))
