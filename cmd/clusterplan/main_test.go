package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/clusterplan/clusterplan/cmd/clusterplan/internal/command"
	"github.com/clusterplan/clusterplan/internal/jsonschematest"
	"github.com/clusterplan/clusterplan/internal/pki"
	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/statefile"
	"github.com/clusterplan/clusterplan/statefile/localstore"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"clusterplan": checked})
}

// checked is main, whose JSON has to fit its schema: else the exit code is 99.
func checked() {
	if len(jsonschematest.Of(os.Args[1:])) == 0 {
		main()
	}
	var out bytes.Buffer
	code := command.Main(os.Args[1:], os.Stdin, io.MultiWriter(os.Stdout, &out), os.Stderr)
	if err := jsonschematest.Output(os.Args[1:], out.Bytes()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(99)
	}
	os.Exit(code)
}

// The scripts run the program itself, for all that needs no cluster; whatever it
// prints as JSON is held to its schema. They have
// commands of their own:
//
//	state DIR        writes the state of an applied quickstart, whose agents don't answer
//	lock DIR         locks it, alive until the script's end; the lock's id is $LOCK
//	identity FILE    writes a new age identity; what belongs to it is $RECIPIENT
//	block DIR recipients R... | passphrase   adds an encryption block to DIR's definition
//	code N CMD...    runs a command that has to exit with N
//	mode FILE PERM   FILE has these permissions
//	half FROM TO     TO is the first half of FROM
//	disk DIR         DIR is a small file system of memory, until the script's end; takes root
//	full DIR         nothing more goes on it
func TestScripts(t *testing.T) {
	quickstart, err := filepath.Abs("../../examples/quickstart")
	if err != nil {
		t.Fatal(err)
	}
	params := testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			// Only the definition: someone may be trying the quickstart in its directory.
			data, err := os.ReadFile(filepath.Join(quickstart, "main.cluster.hcl"))
			if err != nil {
				return err
			}
			into := filepath.Join(e.WorkDir, "quickstart")
			if err := os.Mkdir(into, 0o755); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(into, "main.cluster.hcl"), data, 0o644)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"state":    writeState,
			"lock":     holdLock,
			"identity": newIdentity,
			"block":    encryptionBlock,
			"code":     exitCode,
			"mode":     hasMode,
			"half":     half,
			"disk":     smallDisk,
			"full":     fullDisk,
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("no condition %q", cond)
		},
		RequireExplicitExec: true,
	}
	if raced {
		params.Dir = ""
		for _, name := range []string{"disk_full", "git", "locked", "plan", "planfile", "state_edit"} {
			params.Files = append(params.Files, "testdata/script/"+name+".txtar")
		}
	}
	testscript.Run(t, params)
}

func newIdentity(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: identity FILE")
	}
	id, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(id.String()+"\n"), 0o600))
	ts.Setenv("RECIPIENT", id.Recipient().String())
}

func encryptionBlock(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: block DIR recipients R... | passphrase")
	}
	inner := "passphrase = true"
	if args[1] == "recipients" {
		inner = fmt.Sprintf("recipients = [%q]", strings.Join(args[2:], `", "`))
		inner = strings.ReplaceAll(inner, `\"`, `"`)
	}
	name := filepath.Join(ts.MkAbs(args[0]), "main.cluster.hcl")
	data, err := os.ReadFile(name)
	ts.Check(err)
	ts.Check(os.WriteFile(name, append([]byte("clusterplan {\n  encryption {\n    "+inner+"\n  }\n}\n"), data...), 0o644))
}

func exitCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N CMD...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := "0"
	if exit, ok := err.(interface{ ExitCode() int }); ok {
		got = fmt.Sprint(exit.ExitCode())
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if got != args[0] {
		ts.Fatalf("exit code %s, want %s", got, args[0])
	}
}

func hasMode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE PERM")
	}
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s", args[0], got)
	}
}

func half(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: half FROM TO")
	}
	data := ts.ReadFile(args[0])
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(data[:len(data)/2]), 0o644))
}

func smallDisk(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o755))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		ts.Fatalf("mount a small file system: %v", err)
	}
	ts.Defer(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
}

func fullDisk(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.Create(filepath.Join(ts.MkAbs(args[0]), "filler"))
	ts.Check(err)
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
}

func open(ts *testscript.TestScript, args []string) statefile.Lock {
	if len(args) != 1 {
		ts.Fatalf("name the directory")
	}
	s, err := localstore.Open(localstore.DefaultPath(ts.MkAbs(args[0])), localstore.Options{Program: "0.1.0"})
	ts.Check(err)
	l, err := s.Lock(context.Background(), statefile.LockRequest{Who: "anna@host", What: "apply"})
	ts.Check(err)
	return l
}

func holdLock(ts *testscript.TestScript, _ bool, args []string) {
	l := open(ts, args)
	ts.Setenv("LOCK", l.Info().ID)
	ts.Defer(func() { l.Release() })
}

func writeState(ts *testscript.TestScript, _ bool, args []string) {
	l := open(ts, args)
	defer l.Release()
	id, err := pki.NewIdentity("quickstart")
	ts.Check(err)
	st := statefile.State{
		Cluster: &statefile.Cluster{ID: id.ID, Name: id.Name, CACert: string(id.CACert), CAKey: string(id.CAKey), Key: id.KeyText()},
		Outputs: map[string]statefile.Output{
			"url":    {Value: json.RawMessage(`"http://127.77.0.10:8077/"`), Type: json.RawMessage(`"string"`)},
			"list":   {Value: json.RawMessage(`["a",1]`), Type: json.RawMessage(`["tuple",["string","number"]]`)},
			"number": {Value: json.RawMessage(`3`), Type: json.RawMessage(`"number"`)},
			"secret": {Value: json.RawMessage(`null`), Type: json.RawMessage(`"string"`), Sensitive: true},
		},
	}
	add := func(a addr.Address, typ, provider, id, attributes string) {
		st.Objects = append(st.Objects, statefile.Object{Addr: a, Type: typ, Provider: provider, ID: id, Attributes: json.RawMessage(attributes)})
	}
	add(addr.Cluster(), "cluster", "confdb", id.ID, `{"name":"quickstart","quorum":{"model":"majority_node_set"}}`)
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("n%d", i)
		// Port 1 of these addresses: nobody listens there.
		add(addr.Node(name, addr.NoKey), "node", "local", fmt.Sprintf("00000000000000a%d", i),
			fmt.Sprintf(`{"name":%q,"provider":"local","role":"member","votes":1,"endpoint":"127.0.0.%d:1","server_id":%d}`, name, 200+i, i))
	}
	web := addr.Group("web", addr.NoKey)
	add(web, "group", "confdb", "00000000000000b1", `{"name":"web","preferred_owners":["n1","n2","n3"]}`)
	add(web.WithResource("server", addr.NoKey), "generic_application", "confdb", "00000000000000b2", `{"command":["clusterplan","demo","web"]}`)
	add(web.WithResource("vip", addr.NoKey), "ip_address", "confdb", "00000000000000b3", `{"address":"127.77.0.10"}`)
	ts.Check(l.Finish(st))
}

// Every command says what it does, shows an example, and tells its exit codes.
func TestHelps(t *testing.T) {
	if _, err := os.Stat("testdata/script"); err != nil {
		t.Fatal(err)
	}
	var missing []string
	for _, c := range helps(t) {
		for _, word := range []string{"Usage:", "Example", "Exit codes:", "  0    "} {
			if !strings.Contains(c.text, word) {
				missing = append(missing, c.name+": "+word)
			}
		}
	}
	if len(missing) > 0 {
		t.Error(strings.Join(missing, "\n"))
	}
}
