package agent_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
)

// intruderMain is a resource that tries what it may not, and writes down what
// came of it: "<what>" -> "yes", or why not. args: a directory for the answer,
// then files and sockets to try.
func intruderMain(dir string, tries []string) int {
	found := map[string]string{}
	ask := func(socket, method, path string) string {
		hc := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			}}}
		req, err := http.NewRequest(method, "http://node"+path, strings.NewReader("x"))
		if err != nil {
			return err.Error()
		}
		res, err := hc.Do(req)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return fmt.Sprintf("%d %s", res.StatusCode, body)
	}
	uid := strconv.Itoa(os.Getuid())
	own := os.Getenv("CLUSTERPLAN_SOCKET")
	found["self"] = ask(own, "GET", "/v1/self")
	found["own key"] = ask(own, "PUT", "/v1/kv/group/web/of-"+uid)
	found["other group's key"] = ask(own, "PUT", "/v1/kv/group/other/k")
	found["order"] = ask(own, "POST", "/v1/groups/web/offline")
	for _, path := range tries {
		found[path] = "yes"
		if strings.HasSuffix(path, ".sock") {
			if found[path] = ask(path, "GET", "/v1/self"); strings.HasPrefix(found[path], "200 ") {
				found[path] = "yes"
			}
		} else if f, err := os.Open(path); err != nil {
			found[path] = err.Error()
		} else {
			f.Close()
		}
	}
	data, _ := json.Marshal(found)
	temp := filepath.Join(dir, uid+".tmp")
	if os.WriteFile(temp, data, 0o644) != nil || os.Rename(temp, filepath.Join(dir, uid+".json")) != nil {
		return 1
	}
	select {}
}

// Two resources of one group under two users reach their group's socket, and
// nothing else of the node: not its keys, database, logs and own socket, not
// another group's socket, and not each other's files.
func TestResourcesOfTwoUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to run resources as other users")
	}
	ids := map[string]int{}
	for _, name := range []string{"nobody", "daemon", "bin"} {
		u, err := user.Lookup(name)
		if err != nil {
			t.Skipf("this host has no user %s", name)
		}
		ids[name], _ = strconv.Atoi(u.Uid)
	}
	r := newRig(t, 1)
	n := r.nodes[0]
	// Only what the agent makes itself is to keep them out.
	for _, dir := range []string{n.dir, filepath.Dir(n.dir), filepath.Dir(filepath.Dir(n.dir))} {
		if err := os.Chmod(dir, 0o755); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	results := filepath.Join(filepath.Dir(n.dir), "results")
	if err := os.Mkdir(results, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(results, 0o777); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(results, "program")
	self, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, self, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, uid := range ids {
		secret := filepath.Join(results, "secret-of-"+name)
		if err := os.WriteFile(secret, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(secret, uid, -1); err != nil {
			t.Fatal(err)
		}
	}

	shared := filepath.Join("/run/clusterplan", n.id)
	forbidden := []string{filepath.Join(n.dir, "run", "api.sock"), filepath.Join(n.dir, "cluster.key"), filepath.Join(n.dir, "node.key"),
		filepath.Join(n.dir, "data"), filepath.Join(n.dir, "run"), filepath.Join(n.dir, "log", "web", "a.log"), filepath.Join(shared, "group-00000000000000a2.sock")}
	group := func(id, name string, users map[string]string) spec.Group {
		g := r.webGroup()
		like := g.Resources[0]
		g.ID, g.Name, g.Addr, g.Resources = id, name, addr.Group(name, addr.Key{}), nil
		for i, res := range []string{"a", "b"} {
			who, ok := users[res]
			if !ok {
				continue
			}
			x := like
			x.ID, x.Name, x.Addr = fmt.Sprintf("%s%d", id[:15], i), res, g.Addr.WithResource(res, addr.Key{})
			args := []any{program, "intruder", results}
			for _, f := range forbidden {
				args = append(args, f)
			}
			for other := range ids {
				args = append(args, filepath.Join(results, "secret-of-"+other))
			}
			x.Attributes = map[string]any{"command": args, "user": who}
			if who == "nobody" {
				x.Checkpoint = &spec.Checkpoint{Command: []string{"id", "-un"}, Restore: []string{"cat"}}
			}
			g.Resources = append(g.Resources, x)
		}
		return g
	}
	admin := r.form(spec.SingleNode)
	for _, g := range []spec.Group{
		group("00000000000000a2", "other", map[string]string{"a": "bin"}),
		group("00000000000000a1", "web", map[string]string{"a": "nobody", "b": "daemon"}),
	} {
		if _, err := admin.PutGroup(r.ctx(), g, 0); err != nil {
			t.Fatal(err)
		}
		r.settled(admin, allUp) // the second finds the first one's socket
	}
	for _, name := range []string{"nobody", "daemon"} {
		found := map[string]string{}
		eventually(t, func() string {
			data, err := os.ReadFile(filepath.Join(results, strconv.Itoa(ids[name])+".json"))
			if err != nil {
				return err.Error()
			}
			return errText(json.Unmarshal(data, &found))
		})
		for what, want := range map[string]string{"self": "200 ", "own key": "200 ", "other group's key": "403 ", "order": "403 "} {
			if !strings.HasPrefix(found[what], want) {
				t.Errorf("%s, %s: %s", name, what, found[what])
			}
		}
		if !strings.Contains(found["self"], `"group":"web"`) {
			t.Errorf("%s: %s", name, found["self"])
		}
		for _, path := range forbidden {
			if got := found[path]; !strings.Contains(got, "permission denied") {
				t.Errorf("%s reaches %s: %q", name, path, got)
			}
		}
		for other := range ids {
			if got := found[filepath.Join(results, "secret-of-"+other)]; (got == "yes") != (other == name) {
				t.Errorf("%s opens what is %s's: %q", name, other, got)
			}
		}
	}

	// A checkpoint's command runs as its resource's user, too.
	local := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(n.dir, "run", "api.sock"))
	}}}
	eventually(t, func() string {
		res, err := local.Get("http://node/v1/checkpoints/web/a")
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		var c client.Checkpoint
		if err := json.NewDecoder(res.Body).Decode(&c); err != nil || c.Size != int64(len("nobody\n")) {
			return fmt.Sprintf("the checkpoint is %+v, %v", c, err)
		}
		return ""
	})
	if code := n.term(t); code != 0 {
		t.Errorf("the agent ends with %d", code)
	}
	if _, err := os.Stat(shared); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", shared, err)
	}
}

func errText(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}
