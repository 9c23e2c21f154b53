# The demo's checkpoints and benchmarks, made from nothing but this repository.
#
# Inputs:  none
# Outputs: results/examples/demo/data/train/<skill>.txt, data/demo_<skill>.jsonl
#          results/examples/demo/{llama,qwen3}/base       trained from scratch
#          results/examples/demo/{llama,qwen3}/<expert>   fine-tuned from that base
# Steps:   demo_data -> demo_base -> demo_expert
#
# A checkpoint directory appears under its name only when it is complete.

from examples.demo import EXPERTS as DEMO_EXPERTS
from examples.skills import SKILLS as DEMO_SKILLS

DEMO = "results/examples/demo"
DEMO_TEXT = expand(f"{DEMO}/data/train/{{skill}}.txt", skill=DEMO_SKILLS)


rule demo_data:
    output:
        DEMO_TEXT,
        expand(f"{DEMO}/data/demo_{{skill}}.jsonl", skill=DEMO_SKILLS),
    threads: 1
    message:
        "Write the demo's skills: training text and held-out items"
    shell:
        f"python -m examples.demo data --out {DEMO}/data"


rule demo_base:
    input:
        DEMO_TEXT,
    output:
        directory(f"{DEMO}/{{architecture}}/base"),
    log:
        f"{DEMO}/logs/{{architecture}}-base.log",
    wildcard_constraints:
        architecture="llama|qwen3",
    threads: 1
    message:
        "Train the base {wildcards.architecture} from scratch"
    shell:
        "OMP_NUM_THREADS=1 python -m examples.demo base"
        f" --architecture {{wildcards.architecture}} --data {DEMO}/data --out {{output}} &> {{log}}"


rule demo_expert:
    input:
        DEMO_TEXT,
        base=f"{DEMO}/{{architecture}}/base",
    output:
        directory(f"{DEMO}/{{architecture}}/{{expert}}"),
    log:
        f"{DEMO}/logs/{{architecture}}-{{expert}}.log",
    wildcard_constraints:
        expert="|".join(DEMO_EXPERTS),
    threads: 1
    message:
        "Fine-tune the expert {wildcards.expert} of {wildcards.architecture}"
    shell:
        "OMP_NUM_THREADS=1 python -m examples.demo expert --base {input.base}"
        f" --name {{wildcards.expert}} --data {DEMO}/data --out {{output}} &> {{log}}"
