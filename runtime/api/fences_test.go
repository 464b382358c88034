package api

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/runtime/api/client"
	"github.com/clusterplan/clusterplan/runtime/confdb"
)

// Nobody gets a fence's secrets back; an admin sees whether they changed.
func TestFences(t *testing.T) {
	t.Parallel()
	f, h := formed(t)
	fence := spec.Fence{ID: "f1", Name: "power", Addr: addr.Fence("power", addr.NoKey), Agent: "fence_x", Level: 1, Sensitive: []string{"ip"},
		Parameters: map[string]string{"ip": "10.9.8.7", "password": "hunter2", "port": "623"}}
	put := func(f spec.Fence) (int, string) {
		return ask(t, h, client.RoleAdmin, "PUT", client.PathFences+"/f1", f)
	}
	if code, text := put(fence); code != 200 {
		t.Fatal(code, text)
	}
	for _, role := range []string{client.RoleReader, client.RoleOperator, client.RoleAdmin} {
		for _, path := range []string{client.PathConfig, client.PathStatus, client.PathEvents} {
			code, text := ask(t, h, role, "GET", path, nil)
			if code != 200 || strings.Contains(text, "hunter2") || strings.Contains(text, "10.9.8.7") {
				t.Errorf("GET %s as %s: %d %s", path, role, code, text)
			}
		}
		var conf client.Config
		_, text := ask(t, h, role, "GET", client.PathConfig, nil)
		if err := json.Unmarshal([]byte(text), &conf); err != nil || len(conf.Fences) != 1 {
			t.Fatal(err, text)
		}
		want := spec.Hidden
		if role == client.RoleAdmin {
			want = client.SealParameter("f1", "password", "hunter2")
		}
		if got := conf.Fences[0].Spec.Parameters; got["password"] != want || got["port"] != "623" {
			t.Errorf("as %s: %v", role, got)
		}
		code, text := put(conf.Fences[0].Spec)
		if admin := role == client.RoleAdmin; admin != (code == 200) || !admin && code != 400 {
			t.Errorf("what is shown to %s was written back: %d %s", role, code, text)
		}
	}
	other := fence
	other.Parameters = map[string]string{"ip": client.SealParameter("f1", "ip", "10.9.8.8")}
	if code, text := put(other); code != 400 {
		t.Errorf("what stands for another value was written: %d %s", code, text)
	}
	if f.state.Fences["f1"].Spec.Parameters["password"] != "hunter2" {
		t.Errorf("%+v", f.state.Fences["f1"])
	}
	for _, c := range []struct {
		path string
		body client.Order
		code int
		word string
	}{
		{client.PathNodes + "/n1/fence", client.Order{}, 409, "never fences itself"},
		{client.PathNodes + "/n9/fence", client.Order{}, 404, "no node"},
		{client.PathNodes + "/n2/fence", client.Order{ConfirmedOff: client.ConfirmedNode}, 400, "reason"},
		{client.PathNodes + "/n2/fence", client.Order{ConfirmedOff: "n2", Reason: "x"}, 400, "confirmed_off"},
		{client.PathNodes + "/n2/fence", client.Order{Reason: "it hums"}, 200, ""},
		{client.PathGroups + "/web/move", client.Order{Node: "n1", ConfirmedOff: "n2", Reason: "x"}, 409, "does not own"},
		{client.PathNodes + "/n2/pause", client.Order{ConfirmedOff: "n2"}, 400, ""},
	} {
		if code, text := ask(t, h, client.RoleOperator, "POST", c.path, c.body); code != c.code || !strings.Contains(text, c.word) {
			t.Errorf("%s %+v: %d %s", c.path, c.body, code, text)
		}
	}
	if o := f.state.Nodes["id2"].FenceOrder; o == nil || o.Intent.Reason != "it hums" {
		t.Errorf("%+v", o)
	}
	// A move away from an owner that is off by a person's word: the word, then the order.
	f.state.Apply(confdb.Command{ID: "a", Assign: &confdb.Assign{Group: "g1", Node: "id2"}})
	f.state.Apply(confdb.Command{ID: "v", SetView: &confdb.SetView{From: f.state.View.Epoch, Up: []string{"id1"}}})
	f.state.Nodes["id1"].Joined = true
	code, text := ask(t, h, client.RoleOperator, "POST", client.PathGroups+"/web/move", client.Order{Node: "n1", ConfirmedOff: "n2", Reason: "no power"})
	if o := f.state.Nodes["id2"].FenceOrder; code != 200 || o == nil || !o.ConfirmedOff || o.Intent.Author == "" || f.state.Groups["g1"].Move == nil {
		t.Errorf("%d %s, %+v", code, text, o)
	}
	if code, text := ask(t, h, client.RoleAdmin, "DELETE", client.PathFences+"/f1", nil); code != 200 || len(f.state.Fences) != 0 {
		t.Errorf("%d %s", code, text)
	}
}
