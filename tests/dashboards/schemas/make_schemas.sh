#!/usr/bin/env bash
# Makes the JSON Schemas of this folder again. Needs Node 20 or newer and npm.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
cp "$here/make_schemas.mjs" "$work/"
cd "$work"
echo '{"private": true}' >package.json
# 10.4.0 is the last @grafana/schema with the Prometheus query type; 2.4.0 of the generator does not run on Node 20.
npm install --no-audit --no-fund --no-package-lock --ignore-scripts \
  ts-json-schema-generator@2.3.0 @grafana/schema@13.2.3 grafana-schema-10@npm:@grafana/schema@10.4.0
node make_schemas.mjs "$here"
