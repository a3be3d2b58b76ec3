#!/bin/sh
# The custodian owns the model: seals it, lends it, adds units, blocks, proves its log. See ../README.md.
set -eu
. "$(dirname "$0")/steps.sh"
enter custodian
export CLOISTER_CUSTODIAN_HOME="$PWD/home" CLOISTER_CUSTODIAN_KEY_FILE="$PWD/vault.key"

say "Make the house: a vault for keys, a database, certificates, an admin token."
run cloister custodian init --name "Model Works" --port "$custodian_port"

say "Start the server. It accepts simulated TEEs only because a flag names their root."
await root.pub.json
cp "$handover/root.pub.json" .
cloister custodian serve --insecure-simulated-root root.pub.json >server.log 2>&1 &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT INT TERM
until cloister model list >/dev/null 2>&1; do
  kill -0 "$server" || { cat server.log >&2; exit 1; }
  sleep 0.2
done

say "Train a model, seal it under a key that only the vault can unwrap, publish it."
python3 "$examples/digits.py" model .
run cloister model seal digits.onnx --out sealed --name digits --card card.json
run cloister model publish sealed
digest=$(cloister model list --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["models"][0]["digest"])')

say "Which enclave may have the key: exactly this build, measured here."
run cloister enclave measure --tee simulated --insecure-simulated-root root.pub.json --policy policy.json

say "Lend it: three answers, for one clinic. Leases live four seconds here, sixty by default."
run cloister loan create --borrower "General Hospital" --model "digits=$digest" --allowance 3 \
  --consumer clinic --policy policy.json --ttl 4 --max-ceiling 8 --out loan.json --tokens tokens
loan=$(python3 -c 'import json; print(json.load(open("loan.json"))["loan"])')

say "Hand over: ciphertext and loan file to the borrower, a token to the clinic, the public facts to everybody."
cloister custodian show --json | member key >key
hand_over key custodian.key
hand_over home/tls/ca.pem custodian-ca.pem
tell digest "$digest"
hand_over sealed sealed
hand_over tokens/clinic.token clinic.token
hand_over loan.json loan.json

await asked
say "The borrower asked for more. See the request, and where every unit is."
run cloister loan show "$loan"
run cloister loan approve "$loan" "$(cat "$handover/asked")"

await answered
say "Stop it. The bound is printed with the block."
run cloister loan block "$loan" --reason "end of the example"
await ended

say "Prove the log from files alone, with the key everybody knows."
run cloister audit export --out log.jsonl
run cloister audit verify log.jsonl --checkpoint log.jsonl.checkpoint --key "$(cat key)"

say "One changed byte is found."
sed 's/digits/digitz/' log.jsonl >changed.jsonl
if run cloister audit verify changed.jsonl --checkpoint log.jsonl.checkpoint --key "$(cat key)"; then exit 1; fi
say "The custodian is done."
