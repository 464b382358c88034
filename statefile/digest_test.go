package statefile

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// A written state has digests where the definition has secrets, of every type and
// at every depth; what was written comes back where it is guessed right, and only
// there. What is written again stays as it is.
func TestDigests(t *testing.T) {
	app := addr.Group("g", addr.NoKey).WithResource("app", addr.NoKey)
	twin := addr.Group("g", addr.NoKey).WithResource("twin", addr.NoKey)
	const secrets = `{"command":["run","hush"],"environment":{"A":"hush","B":"open"},"log_keep":987654,"name":"app","open":"seen","restart":{"affect_group":true,"delay":0.25}}`
	names := []string{"command", "environment", "log_keep", "name", "restart"}
	s := State{Lineage: "a", DigestKey: NewDigestKey(), Objects: []Object{
		{Addr: app, Type: "t", Provider: "confdb", ID: "1", Attributes: json.RawMessage(secrets), Sensitive: names},
		{Addr: twin, Type: "t", Provider: "confdb", ID: "2", Attributes: json.RawMessage(secrets), Sensitive: names},
	}}
	text, err := Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"hush", "987654", "true", "0.25", "B\":\"open"} {
		if strings.Contains(string(text[:bytes.LastIndex(text, []byte(checksumStart))]), word) {
			t.Errorf("it tells %q:\n%s", word, text)
		}
	}
	if n := strings.Count(string(text), "\n"); n < 5 || !strings.Contains(string(text), `"name":"app","open":"seen"`) {
		t.Errorf("it hides what is open:\n%s", text)
	}
	back, err := Unmarshal(text)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Marshal(back); err != nil || !bytes.Equal(again, text) {
		t.Errorf("written again it is something else: %v\n%s", err, again)
	}
	one, two := &back.Objects[0], &back.Objects[1]
	if bytes.Equal(one.Attributes, two.Attributes) {
		t.Error("the same secret is the same digest in two objects")
	}
	right := cty.ObjectVal(map[string]cty.Value{
		"command":     cty.TupleVal([]cty.Value{cty.StringVal("run"), cty.StringVal("hush").Mark("secret")}),
		"environment": cty.MapVal(map[string]cty.Value{"A": cty.StringVal("hush"), "B": cty.StringVal("open")}),
		"log_keep":    cty.MustParseNumberVal("987654.0"),
		"restart":     cty.ObjectVal(map[string]cty.Value{"affect_group": cty.True, "delay": cty.NumberFloatVal(0.25)}),
	})
	decode := func(text json.RawMessage) (v map[string]any) {
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if diff := cmp.Diff(decode(json.RawMessage(secrets)), decode(back.Known(one, cty.UnknownVal(right.Type()), right))); diff != "" {
		t.Errorf("guessed right (- is, + seen):\n%s", diff)
	}
	wrong := cty.ObjectVal(map[string]cty.Value{
		"command":     cty.TupleVal([]cty.Value{cty.StringVal("hush"), cty.StringVal("run")}),
		"environment": cty.MapVal(map[string]cty.Value{"B": cty.StringVal("hush")}),
		"log_keep":    cty.StringVal("987654"),
		"restart":     cty.NullVal(cty.DynamicPseudoType),
	})
	for _, like := range [][]cty.Value{nil, {wrong}} {
		seen := back.Known(one, like...)
		v := decode(seen)
		if strings.Contains(string(seen), "hush") || strings.Contains(string(seen), `"open"}`) || v["log_keep"] != nil || strings.Contains(string(seen), "true") {
			t.Errorf("guessed wrong: %s", seen)
		}
		if _, ok := v["command"].([]any)[1].(string); !ok {
			t.Errorf("it fits its type no more: %s", seen)
		}
	}
	// All of a machine is hidden but what it is found and reached by; so of a volume.
	m := Object{Addr: addr.Address{Type: addr.TypeMachine, Name: "m"}, Attributes: json.RawMessage(`{"address":"10.0.0.2","cloud_init":{"enabled":true,"user_data":"hush"},"cmdline":"token=hush","image":"hush.qcow2","interface":[{"network":"lab","mac":"hush"}],"name":"m","vcpus":2}`),
		Sensitive: []string{"address", "cloud_init", "cmdline", "image", "interface", "name", "vcpus"}}
	if seen := string(m.hidden(s.DigestKey).Attributes); strings.Contains(seen, "hush") || !strings.Contains(seen, `"address":"10.0.0.2"`) || !strings.Contains(seen, `"name":"m"`) || strings.Contains(seen, `"vcpus":2`) {
		t.Errorf("a machine: %s", seen)
	}
	v := Object{Addr: addr.Address{Type: addr.TypeVolume, Name: "v"}, Attributes: json.RawMessage(`{"image":"hush","pool":"fast"}`), Sensitive: []string{"image", "pool"}}
	if seen := string(v.hidden(s.DigestKey).Attributes); strings.Contains(seen, "hush") || !strings.Contains(seen, "fast") {
		t.Errorf("a volume: %s", seen)
	}
	// Another state's digests are others.
	s.DigestKey = NewDigestKey()
	if other, err := Marshal(&s); err != nil || bytes.Contains(other, one.Attributes) {
		t.Error("two states have the same digests", err)
	}

	// A journal has them from its begin on, under the key that the state gets.
	var chain Chain
	var journal []byte
	for _, e := range []Entry{{Begin: &Begin{Run: "r", Lineage: "a"}}, {Intent: &Intent{Addr: app, Action: "create", Object: &s.Objects[0]}}, {Result: &Result{Addr: app, Object: &s.Objects[0]}}} {
		if journal, err = chain.Append(journal, &e, nil); err != nil {
			t.Fatal(err)
		}
	}
	j, err := DecodeJournal(journal, nil)
	if err != nil || bytes.Contains(journal, []byte("hush")) {
		t.Fatalf("%v\n%s", err, journal)
	}
	folded, _ := Fold(State{}, j.Entries)
	if diff := cmp.Diff(decode(json.RawMessage(secrets)), decode(folded.Known(folded.Find(app), right))); diff != "" || folded.DigestKey == "" || j.Chain.DigestKey() != folded.DigestKey {
		t.Errorf("from the journal (- is, + seen):\n%s", diff)
	}
	// One of an older format gets the state's key when it is encrypted, not one of its own.
	journal, chain, err = Recode([]Entry{{Begin: &Begin{Run: "r", Lineage: "a"}}, {Result: &Result{Addr: app, Object: &s.Objects[0]}}}, s.DigestKey, nil)
	if err != nil || chain.DigestKey() != s.DigestKey {
		t.Fatal(err)
	}
	if j, err = DecodeJournal(journal, nil); err != nil {
		t.Fatal(err)
	}
	folded, _ = Fold(State{Lineage: "a", DigestKey: s.DigestKey}, j.Entries)
	if diff := cmp.Diff(decode(json.RawMessage(secrets)), decode(folded.Known(folded.Find(app), right))); diff != "" {
		t.Errorf("from an older journal (- is, + seen):\n%s", diff)
	}
	if bytes.Contains(s.Objects[0].Attributes, []byte("hmac")) {
		t.Error("to write an object changed it")
	}
}
