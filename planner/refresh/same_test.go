package refresh

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/clusterplan/clusterplan/lang/addr"
	"github.com/clusterplan/clusterplan/lang/spec"
	"github.com/clusterplan/clusterplan/providers"
)

func full() spec.Group {
	poll := spec.Poll{Interval: 1, Timeout: 2, Command: []string{"a"}, TCP: "b", HTTP: "c"}
	return spec.Group{
		ID: "id", Addr: addr.Group("g", addr.NoKey), Name: "g", Description: "d",
		PreferredOwners: []string{"a"}, PossibleOwners: []string{"a", "b"}, Priority: 1, Demand: map[string]int64{"cpu": 1},
		DependsOn: []string{"x"}, KeepApart: []string{"y"}, KeepApartSoft: []string{"z"}, PersistentState: "online",
		StopWithin: 3, NoQuorum: "stop", Failover: spec.Failover{Mode: "m", Threshold: 1, Period: 4, Stated: true},
		Failback: spec.Failback{Mode: "m", Window: "w", Timezone: "t", Delay: 5}, ManagedBy: spec.ManagedBy,
		Resources: []spec.Resource{{
			ID: "id", Addr: addr.Group("g", addr.NoKey).WithResource("r", addr.NoKey), Name: "r", Type: "t",
			Attributes: map[string]any{"s": "x", "n": 1.5, "b": true, "l": []any{"x"}, "m": map[string]any{"k": "v"}},
			DependsOn:  []string{"a"}, DependsOnAny: []string{"b"}, PendingTimeout: 6, SeparateMonitor: true, LooksAlive: poll, IsAlive: poll,
			Restart:    spec.Restart{Action: "a", Threshold: 1, Period: 7, Delay: 8, AffectGroup: true},
			Checkpoint: &spec.Checkpoint{Paths: []string{"p"}, Command: []string{"c"}, Restore: []string{"r"}},
		}},
	}
}

// Every field counts, but for ids and what is no attribute: a field that is
// added to spec's types and forgotten here fails this test.
func TestSameGroupLooksAtEveryField(t *testing.T) {
	a, b := full(), full()
	if !sameGroup(&a, &b) {
		t.Fatal("a group is not the same as itself")
	}
	ignored := map[string]bool{".ID": true, ".ManagedBy": true, ".Failover.Stated": true, ".Resources[0].ID": true}
	seen := 0
	var visit func(path string, v reflect.Value)
	check := func(path string, changed *spec.Group) {
		seen++
		if same := sameGroup(&a, changed); same != ignored[path] {
			t.Errorf("%s changed: same is %v", path, same)
		}
	}
	visit = func(path string, v reflect.Value) {
		if _, ok := v.Interface().(addr.Address); ok {
			old := v.Interface()
			v.Set(reflect.ValueOf(addr.Node("other", addr.NoKey)))
			check(path, &b)
			v.Set(reflect.ValueOf(old))
			return
		}
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				visit(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Slice:
			if v.Len() == 0 {
				t.Fatalf("%s is empty in full()", path)
			}
			for i := range v.Len() {
				visit(fmt.Sprintf("%s[%d]", path, i), v.Index(i))
			}
			old := v.Interface()
			v.Set(v.Slice(0, 0))
			check(path, &b)
			v.Set(reflect.ValueOf(old))
		case reflect.Map:
			if v.Len() == 0 {
				t.Fatalf("%s is empty in full()", path)
			}
			for _, k := range v.MapKeys() {
				old := v.MapIndex(k)
				v.SetMapIndex(k, reflect.Value{})
				check(path+"["+k.String()+"]", &b)
				v.SetMapIndex(k, old)
			}
		case reflect.Pointer:
			if v.IsNil() {
				t.Fatalf("%s is nil in full()", path)
			}
			visit(path, v.Elem())
			old := v.Interface()
			v.SetZero()
			check(path, &b)
			v.Set(reflect.ValueOf(old))
		case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
			if v.IsZero() {
				t.Fatalf("%s is not set in full()", path)
			}
			old := reflect.New(v.Type()).Elem()
			old.Set(v)
			v.SetZero()
			check(path, &b)
			v.Set(old)
		default:
			t.Fatalf("%s is a %s: teach this test and sameGroup", path, v.Kind())
		}
	}
	visit("", reflect.ValueOf(&b).Elem())
	if seen < 40 {
		t.Errorf("only %d fields were looked at", seen)
	}
	for _, change := range []map[string]any{{"s": "y"}, {"n": 2.5}, {"b": false}, {"l": []any{"y"}}, {"m": map[string]any{"k": "w"}}, {"s": 1.0}} {
		b = full()
		for k, v := range change {
			b.Resources[0].Attributes[k] = v
		}
		check(".Resources[0].Attributes", &b)
	}
	var back spec.Group // as the database tells it
	text, err := json.Marshal(full())
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if !sameGroup(&a, &back) {
		t.Error("a group is not the same after its way through JSON")
	}
}

// A group that is the same takes no memory of its own but for its id; what the
// provider keeps of it none but for ids.
func TestShare(t *testing.T) {
	there, wanted := full(), full()
	wanted.ID, wanted.Resources[0].ID, wanted.Failover.Stated = "", "", false
	before, kept := full(), there.Resources
	share(&there, &wanted)
	if !reflect.DeepEqual(kept, before.Resources) {
		t.Errorf("the provider's: %+v, want %+v", kept, before.Resources)
	}
	if &there.Resources[0] != &wanted.Resources[0] {
		t.Error("it has resources of its own")
	}
	before.Resources = wanted.Resources
	if !reflect.DeepEqual(there, before) {
		t.Errorf("%+v, want %+v", there, before)
	}
	wanted.Resources[0].Attributes["s"] = "changed"
	if kept[0].Attributes["s"] != "changed" {
		t.Error("the provider's has attributes of its own")
	}
}

// remembers counts who is told to forget the database.
type remembers struct {
	shaped
	forgotten int
}

func (*remembers) Live(context.Context) (*providers.Live, error) { return nil, nil }
func (p *remembers) Forget()                                     { p.forgotten++ }

// Where nobody applies the plan, the provider need not keep what it has read.
func TestOnly(t *testing.T) {
	for _, only := range []bool{false, true} {
		p := &remembers{}
		if _, err := Run(t.Context(), Config{Providers: providers.NewRegistry(map[string]providers.Provider{"p": p}), Only: only}); err != nil || p.forgotten > 0 != only {
			t.Errorf("only %v: forgotten %d times, %v", only, p.forgotten, err)
		}
	}
}
