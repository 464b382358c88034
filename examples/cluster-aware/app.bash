#!/usr/bin/env bash
# A program that runs as a resource asks its cluster with curl. clusterplan sets
# CLUSTERPLAN_SOCKET, _GROUP, _RESOURCE, _NODE and _EPOCH for it.
set -uo pipefail

notes=$1
ask() { curl --silent --show-error --unix-socket "$CLUSTERPLAN_SOCKET" --retry 5 --retry-all-errors --retry-delay 1 "$@"; }
mine="http://node/v1/kv/group/$CLUSTERPLAN_GROUP" # the keys of this group

echo "self:  $(ask http://node/v1/self)"
echo "owner: $(ask "http://node/v1/groups/$CLUSTERPLAN_GROUP/owner")"

# Count this start, with compare-and-swap: read the value and its revision (the
# ETag), write only if it is still that one, else begin again. With the epoch, a
# program that is no owner any more can't write, however late it comes.
while :; do
	head=$(mktemp)
	count=$(ask --dump-header "$head" --write-out '\n%{http_code}' "$mine/starts")
	code=${count##*$'\n'} count=${count%$'\n'*}
	case $code in
	200) condition="If-Match: $(sed -n 's/^[Ee][Tt][Aa][Gg]: *//p' "$head" | tr -d '\r"')" ;;
	404) condition="If-None-Match: *" count=0 ;;
	*) echo "read: $code $count" && sleep 1 && continue ;;
	esac
	rm -f "$head"
	code=$(ask --request PUT --header "$condition" --header "Clusterplan-Epoch: $CLUSTERPLAN_EPOCH" \
		--data-binary "$((count + 1))" --output /dev/null --write-out '%{http_code}' "$mine/starts")
	case $code in
	200) break ;;
	412) ;; # somebody else was faster
	409) echo "epoch $CLUSTERPLAN_EPOCH is over" && exit 1 ;;
	*) echo "write: $code" && sleep 1 ;;
	esac
done

line="start $((count + 1)) on $CLUSTERPLAN_NODE under epoch $CLUSTERPLAN_EPOCH"
echo "$line"
echo "$line" >>"$notes"

# Tell whenever the group's ownership changes, until the group is stopped.
exec curl --silent --no-buffer --unix-socket "$CLUSTERPLAN_SOCKET" --header "Accept: text/event-stream" \
	"http://node/v1/groups/$CLUSTERPLAN_GROUP/owner"
