#!/bin/sh
# The borrower runs the enclave on its own machine and has nothing but ciphertext and a loan file. See ../README.md.
set -eu
. "$(dirname "$0")/steps.sh"
enter borrower

say "No TEE here: simulate one. Its root plays the hardware maker, and protects nothing."
run cloister trust simulated-root root.json --public root.pub.json
hand_over root.pub.json root.pub.json

await loan.json
cp -R "$handover/sealed" "$handover/loan.json" .
chmod 600 loan.json

say "Start the enclave: it attests, receives the key, opens the model into memory, leases units, serves."
printf '$ cloister enclave serve --loan-file loan.json --model sealed ... &\n'
cloister enclave serve --loan-file loan.json --model sealed --listen "127.0.0.1:$enclave_port" \
  --tee simulated --insecure-simulated-root root.json --ready-file ready.json >enclave.log 2>&1 &
enclave=$!
trap 'kill "$enclave" 2>/dev/null || true' EXIT INT TERM
until [ -e ready.json ]; do
  kill -0 "$enclave" || { cat enclave.log >&2; exit 1; }
  sleep 0.2
done
member url <ready.json >url
hand_over url url
echo "serving on $(cat url)"
run cloister loan status --loan-file loan.json

await exhausted
say "Used up. Ask the custodian for more, and say why."
run cloister loan request --loan-file loan.json --units 10 --reason "a busy week in radiology" --json >request.json
member id <request.json >asked
hand_over asked asked

say "Wait until the custodian stops it: the enclave then drops its keys and ends by itself, with exit code 4."
code=0
wait "$enclave" || code=$?
tail -n 1 enclave.log
[ "$code" -eq 4 ]
tell ended "$code"
say "The borrower is done."
