package statefile

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/clusterplan/clusterplan/lang/addr"
)

func object(a addr.Address, id string) Object {
	return Object{Addr: a, Type: a.Type, Provider: "local", ID: id, Attributes: json.RawMessage(`{"name":"<` + a.Name + `>"}`)}
}

func node(name string) addr.Address { return addr.Node(name, addr.NoKey) }

// sample has n objects: a cluster, nodes, and groups with a resource each.
func sample(n int) *State {
	s := &State{
		Program: "0.1.0", Serial: 7, Lineage: "00000000000000aa",
		Cluster:    &Cluster{ID: "00000000000000c1", Name: "c", CACert: "-----BEGIN\n", CAKey: "key", Key: "a+b="},
		Outputs:    map[string]Output{"url": {Value: json.RawMessage(`"http://x/?a&b"`), Type: json.RawMessage(`"string"`)}},
		Definition: Definition{Git: "abc", Dirty: true},
		Objects:    []Object{object(addr.Cluster(), "00000000000000c1")},
		Variables:  map[string]json.RawMessage{"v1": json.RawMessage(`[{"name":"size","type":"number","value":3}]`)},
		History: History{{Run: "r0", Serial: 7, Time: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Who: "anna@<host>", Action: "apply", Outcome: OutcomeDone,
			Definition: Definition{Git: "abc", Dirty: true}, Counts: Counts{Add: 2}, Variables: "v1", Moved: &Moved{Moves: []Move{{node("a"), node("b")}}}}},
	}
	for i := 0; len(s.Objects) < n; i++ {
		g := addr.Group(fmt.Sprintf("g%05d", i), addr.NoKey)
		r := object(g.WithResource("server", addr.NoKey), fmt.Sprintf("%016x", 2*i))
		r.Attributes = json.RawMessage(`{"name":"server","type":"generic_application","attributes":{"command":["clusterplan","demo","web","--listen","127.77.0.10:8077"],"environment":{},"stop_signal":"SIGTERM","stop_timeout":"10s"},"depends_on":["vip"],"depends_on_any":[],"pending_timeout":"3m","looks_alive":{"interval":"5s","timeout":"10s"},"is_alive":{"interval":"10s","timeout":"10s","http":"http://127.77.0.10:8077/"},"restart":{"action":"restart","threshold":3,"period":"15m","delay":"0s","affect_group":true}}`)
		r.DependsOn = []addr.Address{g}
		s.Objects = append(s.Objects, object(g, fmt.Sprintf("%016x", 2*i+1)), r)
	}
	return s
}

var sameAddr = cmp.Comparer(func(a, b addr.Address) bool { return a == b })

func mustMarshal(t testing.TB, s *State) []byte {
	t.Helper()
	data, err := Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	for _, s := range []*State{{Lineage: "x"}, sample(1), sample(50)} {
		data := mustMarshal(t, s)
		got, err := Unmarshal(data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		want := *s
		want.FormatVersion, want.Checksum = FormatVersion, got.Checksum
		if want.Objects == nil {
			want.Objects = []Object{}
		}
		if diff := cmp.Diff(&want, got, sameAddr); diff != "" {
			t.Error(diff)
		}
		if again := mustMarshal(t, got); string(again) != string(data) {
			t.Error("the bytes differ the second time")
		}
	}
}

// The short way of reading and encoding/json's read the same.
func TestFastIsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(0, 6, 20)
		value := rapid.SampledFrom([]string{`null`, `1.5`, `true`, `"a\"}],{[b"`, `{}`, `[[],{"a":[{"b":"\\"}]},"]"]`, `{"x":-1,"y":null}`})
		o := Object{
			Addr: addr.Node("n", addr.StringKey(text.Draw(t, "key"))), Type: text.Draw(t, "type"), Provider: text.Draw(t, "provider"), ID: text.Draw(t, "id"),
			Attributes: json.RawMessage(value.Draw(t, "attributes")), Tainted: text.Draw(t, "tainted"), PreventDestroy: rapid.Bool().Draw(t, "prevent"),
			Phases: rapid.SliceOfN(text, 0, 2).Draw(t, "phases"), Sensitive: rapid.SliceOfN(text, 0, 2).Draw(t, "sensitive"),
		}
		if rapid.Bool().Draw(t, "private") {
			o.Private = json.RawMessage(value.Draw(t, "the private"))
		}
		for _, k := range rapid.SliceOfN(text, 0, 2).Draw(t, "depends on") {
			o.DependsOn = append(o.DependsOn, addr.Group("g", addr.StringKey(k)).WithResource("r", addr.IntKey(1)))
		}
		data, err := Marshal(&State{Lineage: text.Draw(t, "lineage"), Objects: []Object{object(addr.Cluster(), "c"), o}})
		if err != nil {
			t.Fatal(err)
		}
		var fast, slow State
		if !unmarshalFast(data, &fast) {
			t.Fatalf("not read the short way: %s", data)
		}
		if err := json.Unmarshal(data, &slow); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(slow, fast, sameAddr); diff != "" {
			t.Fatal(diff)
		}
	})
}

func TestMarshalRefusesDisorder(t *testing.T) {
	for _, objects := range [][]Object{
		{object(node("b"), "1"), object(node("a"), "2")},
		{object(node("a"), "1"), object(node("a"), "2")},
	} {
		if _, err := Marshal(&State{Objects: objects}); err == nil || !strings.Contains(err.Error(), "node.a") {
			t.Error(err)
		}
	}
}

func TestUnmarshalErrors(t *testing.T) {
	good := string(mustMarshal(t, sample(3)))
	for _, c := range []struct {
		name, data string
		is         error
		words      string
	}{
		{"empty", "", ErrDamaged, "it is empty"},
		{"cut", good[:len(good)/2], ErrDamaged, fmt.Sprintf("in line %d", 1+strings.Count(good[:len(good)/2], "\n"))},
		{"a letter changed", strings.Replace(good, "<g00000>", "<g00001>", 1), ErrDamaged, "were changed by something other"},
		{"a comma lost", strings.Replace(good, "\"serial\": 7,", "\"serial\": 7", 1), ErrDamaged, "in line 5"},
		{"a wrong type", strings.Replace(good, "\"serial\": 7", "\"serial\": \"7\"", 1), ErrDamaged, "in line 4"},
		{"a wrong address", strings.Replace(good, `"addr":"cluster"`, `"addr":"custard"`, 1), ErrDamaged, "custard"},
		{"zeros", strings.Repeat("\x00", 4096), ErrDamaged, "line 1"},
		{"laid out anew", strings.ReplaceAll(good, "\n  ", "\n\t"), ErrDamaged, "no checksum"},
		{"something behind", good + "\n", ErrDamaged, "checksum"},
		{"no version", strings.Replace(good, `"1.3"`, `"x"`, 1), ErrDamaged, `format_version is "x"`},
		{"next minor", strings.Replace(good, `"1.3"`, `"1.9"`, 1), ErrNewer, "clusterplan 0.1.0 wrote it in format 1.9"},
		{"next major, of another shape", `{"format_version": "2.0", "program": "3.0.0", "serial": {}}`, ErrNewer, "this program reads up to 1.3"},
		{"older", strings.Replace(good, `"1.3"`, `"0.9"`, 1), nil, "older than this program reads"},
	} {
		_, err := Unmarshal([]byte(c.data))
		if err == nil || c.is != nil && !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFind(t *testing.T) {
	s := sample(5)
	for i := range s.Objects {
		if o := s.Find(s.Objects[i].Addr); o != &s.Objects[i] {
			t.Errorf("%s: %v", s.Objects[i].Addr, o)
		}
	}
	if o := s.Find(node("none")); o != nil {
		t.Error(o)
	}
}

func entries() []Entry {
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	o := object(node("n1"), "00000000000000a1")
	return []Entry{
		{Time: at, Begin: &Begin{Run: "r1", Serial: 7, Lineage: "00000000000000aa", DigestKey: "a2V5", Generation: 1, Who: "anna@host"}},
		{Time: at, Cluster: &Cluster{ID: "00000000000000c1"}},
		{Time: at, Intent: &Intent{Addr: o.Addr, Action: "create", Phase: "install", Object: &o}},
		{Time: at, Result: &Result{Addr: o.Addr, Phase: "install", Object: &o}},
		{Time: at, Result: &Result{Addr: node("n2"), Gone: true}},
	}
}

func encode(t testing.TB, es []Entry) (data []byte, ends []int) {
	t.Helper()
	var c Chain
	var err error
	for i := range es {
		if data, err = c.Append(data, &es[i], nil); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, len(data))
	}
	return data, ends
}

// Cut at any byte, a journal is its whole records; changed in any byte, it is
// refused.
func TestJournalCutAndChanged(t *testing.T) {
	es := entries()
	data, ends := encode(t, es)
	for cut := 0; cut <= len(data); cut++ {
		j, err := DecodeJournal(data[:cut], nil)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		whole := 0
		for whole < len(ends) && ends[whole] <= cut {
			whole++
		}
		if diff := cmp.Diff(append([]Entry(nil), es[:whole]...), j.Entries, sameAddr); diff != "" {
			t.Fatalf("cut at %d:\n%s", cut, diff)
		}
		if size := append([]int{0}, ends...)[whole]; j.Size != int64(size) || j.Torn != (cut > size) {
			t.Fatalf("cut at %d: size %d, torn %v", cut, j.Size, j.Torn)
		}
	}
	for i := range data {
		bad := slices.Clone(data)
		bad[i] ^= 1
		record := 1
		for ends[record-1] <= i {
			record++
		}
		_, err := DecodeJournal(bad, nil)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), fmt.Sprintf("in record %d,", record)) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	for name, bad := range map[string][]byte{
		"a record lost":    append(slices.Clone(data[:ends[1]]), data[ends[2]:]...),
		"a record doubled": append(slices.Clone(data[:ends[2]]), data[ends[1]:]...),
		"the last changed": append(slices.Clone(data[:ends[3]+20]), append([]byte("?"), data[ends[3]+21:]...)...),
	} {
		if _, err := DecodeJournal(bad, nil); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Zeros in the last record are pages that the crash kept from the disk.
	torn := slices.Clone(data)
	copy(torn[ends[3]:], make([]byte, 10))
	if j, err := DecodeJournal(torn, nil); err != nil || !j.Torn || len(j.Entries) != 4 {
		t.Errorf("zeros: %v", err)
	}
	// One can go on behind a torn end.
	j, _ := DecodeJournal(data[:ends[3]+5], nil)
	more, err := j.Chain.Append(slices.Clone(data[:j.Size]), &es[4], nil)
	if err != nil || string(more) != string(data) {
		t.Error("going on behind a torn end makes another journal", err)
	}
}

func TestJournalKinds(t *testing.T) {
	for _, e := range []Entry{{}, {Begin: &Begin{}, Cluster: &Cluster{}}, {Moved: &Moved{}, Result: &Result{}}} {
		data, _ := encode(t, []Entry{e})
		if _, err := DecodeJournal(data, nil); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "kinds of entries") {
			t.Error(err)
		}
	}
}

func TestFold(t *testing.T) {
	group := addr.Group("g", addr.NoKey)
	part := group.WithResource("r", addr.NoKey)
	o := func(a addr.Address, id string) *Object { x := object(a, id); return &x }
	intent := func(a addr.Address, action string, obj *Object) Entry {
		return Entry{Intent: &Intent{Addr: a, Action: action, Object: obj}}
	}
	result := func(r Result) Entry { return Entry{Result: &r} }
	begin := func(run string) Entry {
		return Entry{Begin: &Begin{Run: run, Lineage: "L", Definition: Definition{Git: run}}}
	}
	for _, c := range []struct {
		name    string
		before  []Object
		entries []Entry
		objects string // addr=id
		pending string // addr:action[run]
	}{
		{name: "cut off create", entries: []Entry{begin("r1"), intent(node("n1"), "create", o(node("n1"), "1"))}, pending: "node.n1:create[r1]"},
		{name: "create", entries: []Entry{begin("r1"), intent(node("n1"), "create", o(node("n1"), "1")), result(Result{Addr: node("n1"), Object: o(node("n1"), "1")})}, objects: "node.n1=1"},
		{name: "failed create that tells nothing", entries: []Entry{begin("r1"), intent(node("n1"), "create", o(node("n1"), "1")), result(Result{Addr: node("n1"), Error: "x"})}, pending: "node.n1:create[r1] x"},
		{name: "failed create that made nothing", entries: []Entry{begin("r1"), intent(node("n1"), "create", o(node("n1"), "1")), result(Result{Addr: node("n1"), Gone: true, Error: "x"})}},
		{name: "failed update keeps what is known", before: []Object{object(node("n1"), "1")}, entries: []Entry{begin("r1"), intent(node("n1"), "update", o(node("n1"), "1")), result(Result{Addr: node("n1"), Error: "x"})}, objects: "node.n1=1"},
		{name: "failed replacement may be there", before: []Object{object(node("n1"), "1")}, entries: []Entry{begin("r1"), intent(node("n1"), "replace", o(node("n1"), "2")), result(Result{Addr: node("n1"), Error: "x"})}, objects: "node.n1=1", pending: "node.n1:replace[r1] x"},
		{name: "second run, later intent", entries: []Entry{begin("r1"), intent(node("n1"), "create", nil), begin("r2"), intent(node("n1"), "create", nil)}, pending: "node.n1:create[r2]"},
		{name: "second run mends", entries: []Entry{begin("r1"), intent(node("n1"), "create", nil), begin("r2"), result(Result{Addr: node("n1"), Object: o(node("n1"), "1")})}, objects: "node.n1=1"},
		{name: "delete", before: []Object{object(node("n1"), "1"), object(node("n2"), "2")}, entries: []Entry{begin("r1"), intent(node("n1"), "delete", nil), result(Result{Addr: node("n1"), Gone: true})}, objects: "node.n2=2"},
		{name: "a group goes with its resources", before: []Object{object(node("n1"), "1"), object(group, "2"), object(part, "3")},
			entries: []Entry{begin("r1"), result(Result{Addr: group.WithResource("s", addr.NoKey), Object: o(group.WithResource("s", addr.NoKey), "4")}), result(Result{Addr: group, Gone: true})}, objects: "node.n1=1"},
		{name: "a group comes back", before: []Object{object(group, "2"), object(part, "3")},
			entries: []Entry{begin("r1"), result(Result{Addr: group, Gone: true}), result(Result{Addr: group, Object: o(group, "5")}), result(Result{Addr: part, Object: o(part, "6")})}, objects: "group.g=5 group.g.resource.r=6"},
		{name: "one resource goes", before: []Object{object(group, "2"), object(part, "3")}, entries: []Entry{begin("r1"), result(Result{Addr: part, Gone: true})}, objects: "group.g=2"},
		{name: "order", entries: []Entry{begin("r1"), result(Result{Addr: group, Object: o(group, "2")}), result(Result{Addr: node("b"), Object: o(node("b"), "1")}), result(Result{Addr: node("a"), Object: o(node("a"), "0")})}, objects: "node.a=0 node.b=1 group.g=2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := slices.Clone(c.before)
			s, pending := Fold(State{Objects: c.before}, c.entries)
			var objects, pend []string
			for _, o := range s.Objects {
				objects = append(objects, o.Addr.String()+"="+o.ID)
			}
			for _, p := range pending {
				pend = append(pend, strings.TrimSpace(fmt.Sprintf("%s:%s[%s] %s", p.Addr, p.Action, p.Run, p.Error)))
			}
			if got := strings.Join(objects, " "); got != c.objects {
				t.Errorf("objects %s, want %s", got, c.objects)
			}
			if got := strings.Join(pend, " "); got != c.pending {
				t.Errorf("pending %s, want %s", got, c.pending)
			}
			if s.Lineage != "L" || s.Definition.Git == "" {
				t.Errorf("lineage %q, definition %v", s.Lineage, s.Definition)
			}
			if diff := cmp.Diff(before, c.before, sameAddr); diff != "" {
				t.Error("the state given was changed:", diff)
			}
			if _, err := Marshal(&s); err != nil {
				t.Error(err)
			}
		})
	}
}

// A journal folded in two parts says the same as in one.
func TestFoldInParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addrs := []addr.Address{node("a"), node("b"), addr.Group("g", addr.NoKey), addr.Group("g", addr.NoKey).WithResource("r", addr.NoKey)}
		var es []Entry
		for range rapid.IntRange(0, 12).Draw(t, "n") {
			a := rapid.SampledFrom(addrs).Draw(t, "addr")
			o := object(a, rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id"))
			es = append(es, rapid.SampledFrom([]Entry{
				{Result: &Result{Addr: a, Object: &o}}, {Result: &Result{Addr: a, Gone: true}},
			}).Draw(t, "entry"))
		}
		cut := rapid.IntRange(0, len(es)).Draw(t, "cut")
		whole, _ := Fold(State{}, es)
		first, _ := Fold(State{}, es[:cut])
		second, _ := Fold(first, es[cut:])
		if diff := cmp.Diff(mustMarshal2(t, whole), mustMarshal2(t, second)); diff != "" {
			t.Fatal(diff)
		}
	})
}

func mustMarshal2(t *rapid.T, s State) string {
	data, err := Marshal(&s)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Whatever bytes are read, there is an error or a state that writes itself back.
func FuzzUnmarshal(f *testing.F) {
	f.Add(mustMarshal(f, &State{Lineage: "x"}))
	f.Add(mustMarshal(f, sample(3)))
	f.Add([]byte(`{"format_version":"2.0"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Unmarshal(data)
		if err != nil {
			return
		}
		if _, err := Marshal(s); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzJournal(f *testing.F) {
	data, ends := encode(f, entries())
	f.Add(data)
	f.Add(data[:ends[2]+7])
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := DecodeJournal(data, nil)
		if err != nil {
			return
		}
		if j.Size > int64(len(data)) || j.Torn != (j.Size < int64(len(data))) {
			t.Fatalf("size %d of %d, torn %v", j.Size, len(data), j.Torn)
		}
		again, err := DecodeJournal(data[:j.Size], nil)
		if err != nil || again.Torn || again.Chain.Sum != j.Chain.Sum || len(again.Entries) != len(j.Entries) {
			t.Fatal("the whole records alone are another journal", err)
		}
		Fold(State{}, j.Entries)
	})
}

func Benchmark(b *testing.B) {
	for _, n := range []int{1_000, 10_000} {
		s := sample(n)
		data := mustMarshal(b, s)
		b.Run(fmt.Sprintf("load/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Unmarshal(data); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("save/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				mustMarshal(b, s)
			}
		})
	}
}
