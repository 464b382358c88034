// Package archtest holds who may import whom, as text, and a test that the
// code keeps to it. Changing the text to mend a build is a decision to defend:
// the reason stands on its line.
package archtest

import (
	"fmt"
	"slices"
	"strings"
)

// Rules: `a < b` means that b may import a and all that a may import; a list
// on either side means each of it; `NONE < a` that a imports nothing of ours and
// nothing from other modules. `x/...` is a room with all packages below it.
// Modules of others have the short names below. Tests may import anything.
const Rules = `
hcl      = github.com/hashicorp/hcl/v2
age      = filippo.io/age
ssh_config = github.com/kevinburke/ssh_config
knownhosts = github.com/skeema/knownhosts
crypto   = golang.org/x/crypto
cty      = github.com/zclconf/go-cty
cty-yaml = github.com/zclconf/go-cty-yaml
cobra    = github.com/spf13/cobra
pflag    = github.com/spf13/pflag
raft     = go.etcd.io/raft/v3
protobuf = google.golang.org/protobuf
bbolt    = go.etcd.io/bbolt
sync     = golang.org/x/sync
jrpc2    = github.com/creachadair/jrpc2
netlink  = github.com/vishvananda/netlink
netns    = github.com/vishvananda/netns
packet   = github.com/mdlayher/packet
xnet     = golang.org/x/net
sys      = golang.org/x/sys
term     = golang.org/x/term
xtext    = golang.org/x/text
cmp      = github.com/google/go-cmp
rapid    = pgregory.net/rapid
netlink  = github.com/vishvananda/netlink
nftables = github.com/google/nftables
porcupine = github.com/anishathalye/porcupine
go-git   = github.com/go-git/go-git/v5
go-billy = github.com/go-git/go-billy/v5
go-libvirt = github.com/digitalocean/go-libvirt
iso9660  = github.com/kdomanski/iso9660
jsonschema = github.com/santhosh-tekuri/jsonschema/v6

NONE < lang/addr < lang/spec          # the model is the standard library's only: agents use it too
NONE < graph                          # generic, knows nothing of clusters
NONE < internal/atomicfile
NONE < internal/shell                 # words of commands, run or told
sys, internal/atomicfile, netlink, nftables < internal/netlab   # namespaces and links by the kernel's own interface: no ip and nft programs
internal/netlab, crypto < internal/sshlab  # hosts with sshd on one machine, for tests and benches
sys < internal/ownpages               # what a process has in memory of its program's file
internal/ownpages < internal/burst    # the garbage collector's pace in commands, and what else takes memory in them
NONE < internal/pki                   # certificates, for both ends
NONE < docs/schemas                   # JSON Schemas of what is printed, as files
docs/schemas, jsonschema < internal/jsonschematest # tests hold what is printed to them
crypto < internal/gittest # real servers of git, over HTTP and SSH, to test with
go-git < internal/gitremote # how a repository behind a network is told who asks, and what its errors mean
go-git, go-billy < internal/revision  # definitions in git: which commit, and files as of one; knows nothing of definitions
internal/revision, internal/gitremote, internal/atomicfile, hcl, sys < internal/gitmodule # modules from git: lock file, cache, and who fetches; knows nothing of definitions
internal/shell, crypto, ssh_config, knownhosts < internal/sshconn # connections to hosts over SSH: commands, files, forwarding; knows nothing of clusters and providers
internal/sshconn, go-libvirt < internal/libvirtconn # a hypervisor's libvirtd, by any URI; knows nothing of clusters and providers
NONE < internal/libvirtlab            # a libvirtd of its own for a test, with a guest that boots in seconds
sys < internal/cgroup < internal/cgroup/cgrouptest   # ends what runs in control groups
sys < internal/rawio                  # system calls beside Go's scheduler
lang/spec, sys, internal/rawio < internal/boottime    # the boot clock gives the model's instants

lang/spec, cty < lang/schema                              # values to the model and back
lang/spec, lang/schema, graph, hcl, cty, cty-yaml, xtext < lang   # the language; xtext: character sets, of two functions

lang/addr, lang/spec, cty, crypto < statefile             # types and codecs, no files; a journal's records are sealed one by one; what stands for a sensitive value, everybody knows
statefile, age < statefile/seal                           # encryption at rest
statefile, internal/atomicfile, internal/shell, sys < statefile/localstore # files and locks
statefile, internal/atomicfile < statefile/remote          # what stores elsewhere have in common: what is there, and what is written next; puts aside in files
statefile, statefile/remote < statefile/httpstore          # behind an address, as Terraform's HTTP backend
NONE < statefile/httpstore/httpstoretest                   # such a server, to test with
statefile, statefile/remote, internal/gitremote, go-git < statefile/gitstore # in a ref of a git repository, by push

lang/spec < runtime/api/client                            # and the wire types, which servers and clients share
NONE < runtime/eventlog                                   # pure: events in, a story out
NONE < client                                             # for programs that run in a group: the standard library's only
lang/addr, lang/spec, lang/schema, cty, internal/pki, internal/shell < providers   # the interface, and the lifecycle over Host
providers, internal/atomicfile, internal/cgroup, internal/netlab, sys < providers/local     # places know no other place, and never the planner
providers, runtime/api/client, sync < providers/confdb    # through the agents' API only
providers, internal/libvirtconn, go-libvirt, iso9660 < providers/libvirt   # machines, networks, volumes; seeds for cloud-init
providers, internal/sshconn < providers/ssh               # hosts over SSH; the connection is a room of its own
providers < providers/providertest                        # what every provider is held to

lang/spec < runtime/quorum, runtime/placement             # pure: the planner asks them as well
lang/spec < runtime/confdb                                # interface and state machine
runtime/confdb < runtime/confdb/boltdb                    # pure drivers
runtime/confdb < runtime/confdb/diskdb                    # the quorum device's
runtime/confdb, sys < runtime/confdb/device               # the device itself
runtime/confdb, raft, protobuf < runtime/confdb/raftdb
runtime/confdb, bbolt, sys < runtime/confdb/store         # the disk below the drivers
runtime/confdb, cmp, rapid < runtime/confdb/confdbtest    # what every driver is held to
lang/spec < runtime/heartbeat                              # frames
lang/spec, sys, internal/atomicfile < runtime/resource    # one file a resource type
netlink, packet, xnet, sys < runtime/address               # addresses in the kernel, and the frames that tell of them
netlink, netns, sys < runtime/address/addresstest         # a network of namespaces for tests
runtime/api/client, sys < runtime/checkpoint                # files, and the agent as their store
runtime/resource, runtime/checkpoint, runtime/address, internal/boottime, internal/cgroup, internal/rawio, internal/ownpages < runtime/monitor     # a process of its own, which counts its lease on the boot clock
runtime/quorum, runtime/placement, runtime/confdb, runtime/heartbeat < runtime/core   # pure: one node's machine
lang/spec, sys, internal/cgroup, internal/libvirtconn, go-libvirt < runtime/fence   # runs fence agents, turns machines off; knows no cluster
runtime/core < runtime/member                             # pure: core, driver and frames as one
runtime/member, runtime/confdb/boltdb, runtime/confdb/raftdb, runtime/confdb/diskdb, porcupine < runtime/sim # many members in one process, nothing of the shell, and a judge of what clients saw
runtime/member, runtime/confdb/boltdb, runtime/confdb/raftdb, runtime/confdb/diskdb, runtime/confdb/device, runtime/confdb/store, runtime/monitor, runtime/fence, internal/pki, internal/boottime, internal/rawio, internal/ownpages, sync < runtime/agent   # wires the runtime
runtime/agent, runtime/api/client < runtime/api           # the server; the client stays apart from it

internal/netlab, lang/spec, runtime/api/client, client, sys, porcupine < internal/faultlab   # a real cluster in a network lab, by its command line, and a client beside it
lang, jrpc2, sync < lsp                                   # the language for editors: nothing of plans and clusters
lang, statefile, providers, graph, runtime/placement, runtime/quorum < planner        # pure
planner < planner/plannertest                             # a world in memory
planner, runtime/sim < planner/scenario                   # what a scenario does runs on the simulated cluster: the agents' own code
planner < planner/planfile                                # pure: a plan's bytes, and whether it is still that plan
planner, sync < planner/refresh                           # asks providers
planner < planner/plannertest                             # a world in memory to plan and apply in
planner, planner/refresh, statefile/localstore, internal/pki, sync < planner/apply    # walks a plan

statefile/seal, statefile/httpstore, statefile/gitstore, lang, lsp, planner/planfile, planner/scenario, planner/refresh, planner/apply, providers/local, providers/ssh, providers/libvirt, providers/confdb, runtime/api, runtime/eventlog, internal/revision, internal/gitmodule, internal/burst, cobra, pflag, term < cmd/clusterplan/...   # everything meets here
runtime/api/client, providers/confdb, lang, lsp, planner, planner/refresh, planner/apply, planner/plannertest, statefile/localstore, internal/burst, sync, sys, runtime/sim, runtime/monitor, client, internal/faultlab, internal/sshlab < bench/...   # they measure
`

// Pure rooms have no effects: neither these packages of the standard library
// nor the clock nor goroutines. What is given is all that they know.
var (
	Pure = []string{"lang/addr", "lang/spec", "graph", "planner", "planner/planfile", "runtime/core", "runtime/member",
		"runtime/placement", "runtime/quorum", "runtime/confdb", "runtime/eventlog"}
	Effects = []string{"os", "os/exec", "os/signal", "os/user", "net", "net/http", "syscall", "context",
		"log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand"}
	Clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
)

const module = "github.com/clusterplan/clusterplan/"

// rules is the text, read.
type rules struct {
	modules map[string]string          // short name by path
	may     map[string]map[string]bool // what a room may import: rooms and short names
}

func parse(text string) (*rules, error) {
	r := &rules{modules: map[string]string{}, may: map[string]map[string]bool{}}
	for i, line := range strings.Split(text, "\n") {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		if name, path, ok := strings.Cut(line, "="); ok {
			r.modules[strings.TrimSpace(path)] = strings.TrimSpace(name)
			continue
		}
		sides := strings.Split(line, "<")
		if len(sides) < 2 {
			return nil, fmt.Errorf("rule %d: %q is no a < b", i+1, line)
		}
		for s := 1; s < len(sides); s++ {
			for _, b := range names(sides[s]) {
				if r.may[b] == nil {
					r.may[b] = map[string]bool{}
				}
				for _, a := range names(sides[s-1]) {
					if a == "NONE" {
						continue
					}
					if r.may[a] == nil && !slices.Contains(r.shortNames(), a) {
						return nil, fmt.Errorf("rule %d: %s has no rule of its own above", i+1, a)
					}
					r.may[b][a] = true
					for c := range r.may[a] {
						r.may[b][c] = true
					}
				}
			}
		}
	}
	return r, nil
}

func (r *rules) shortNames() []string {
	var all []string
	for _, name := range r.modules {
		all = append(all, name)
	}
	return all
}

func names(side string) []string {
	all := strings.Split(side, ",")
	for i := range all {
		all[i] = strings.TrimSpace(all[i])
	}
	return all
}

// room is the rule's name for a package of ours.
func (r *rules) room(pkg string) (string, bool) {
	if _, ok := r.may[pkg]; ok {
		return pkg, true
	}
	for at := pkg; at != ""; {
		if _, ok := r.may[at+"/..."]; ok {
			return at + "/...", true
		}
		i := strings.LastIndexByte(at, '/')
		at = at[:max(i, 0)]
	}
	return "", false
}

// check tells what is wrong with an import, or "".
func (r *rules) check(pkg, imported string) string {
	from, ok := r.room(pkg)
	if !ok {
		return fmt.Sprintf("%s has no rule: say in archtest.go what it may import, and why", pkg)
	}
	if first, _, _ := strings.Cut(imported, "/"); !strings.Contains(first, ".") {
		if slices.Contains(Pure, from) && slices.Contains(Effects, imported) {
			return fmt.Sprintf("%s is pure and may not import %s", from, imported)
		}
		return ""
	}
	var to string
	if ours, is := strings.CutPrefix(imported, module); is {
		if to, ok = r.room(ours); !ok {
			return fmt.Sprintf("%s has no rule: say in archtest.go what it may import, and why", ours)
		}
	} else {
		for path, name := range r.modules {
			if imported == path || strings.HasPrefix(imported, path+"/") {
				to = name
			}
		}
		if to == "" {
			return fmt.Sprintf("%s imports %s, a module without a short name in archtest.go", pkg, imported)
		}
	}
	if to != from && !r.may[from][to] {
		return fmt.Sprintf("%s may not import %s: no rule says %s < %s", pkg, imported, to, from)
	}
	return ""
}
