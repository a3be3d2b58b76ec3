# What the three scripts share. The parties meet in one folder, handover/, as they would by mail or a web page.

examples=$(cd "$(dirname "$0")/.." && pwd)
root=${1:-./three-terminals-run}
custodian_port=${CUSTODIAN_PORT:-8443}
enclave_port=${ENCLAVE_PORT:-8440}
mkdir -p "$root/handover" "$root/custodian" "$root/borrower" "$root/consumer"
handover=$(cd "$root/handover" && pwd)

enter() { cd "$root/$1"; }

say() { printf '\n# %s\n' "$*"; }

# Show a command as one would type it, also where its output goes to a file; then run it.
exec 3>&1
run() {
  line='$'
  for word; do
    case $word in *[!A-Za-z0-9_./:=@-]*) line="$line '$word'" ;; *) line="$line $word" ;; esac
  done
  printf '%s\n' "$line" >&3
  "$@"
}

# Hand a file or folder to the others, whole or not at all.
hand_over() { cp -R "$1" "$handover/.$2" && mv "$handover/.$2" "$handover/$2"; }

# Tell the others something.
tell() { printf '%s\n' "$2" >"$handover/.$1" && mv "$handover/.$1" "$handover/$1"; }

# Wait for what another party hands over or tells, two minutes at most.
await() {
  left=600
  until [ -e "$handover/$1" ]; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || { echo "waited two minutes for $1; are the other two scripts running?" >&2; exit 1; }
    sleep 0.2
  done
}

# Print one member of the JSON document on stdin.
member() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }
