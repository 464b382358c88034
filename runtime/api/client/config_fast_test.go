package client

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// fill sets every field that v has, however deep, to something that is not zero.
func fill(v reflect.Value) {
	switch v.Type() {
	case reflect.TypeFor[addr.Address]():
		v.Set(reflect.ValueOf(addr.Group("g", addr.StringKey("a b")).WithResource("r", addr.IntKey(2))))
		return
	case reflect.TypeFor[time.Time]():
		v.Set(reflect.ValueOf(time.Unix(1e9, 0).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("a \"text\" <of> \\ ä\u2028")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(7 * time.Second))
	case reflect.Uint64:
		v.SetUint(1<<64 - 1)
	case reflect.Float64:
		v.SetFloat(1.5)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i))
		}
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		fill(e)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("k"), e)
	case reflect.Interface:
		v.Set(reflect.ValueOf([]any{"x", 1.5, true, nil, map[string]any{"k": []any{}}}))
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fill(v.Field(i))
			}
		}
	}
}

// same reads text both ways, and says whether the fast one could.
func same(t *testing.T, text []byte) bool {
	t.Helper()
	var fast, slow Config
	if !decodeConfig(text, &fast) {
		if !reflect.ValueOf(fast).IsZero() {
			t.Errorf("%s: left to encoding/json with something in it: %+v", text, fast)
		}
		return false
	}
	if err := json.Unmarshal(text, &slow); err != nil {
		t.Errorf("%s: encoding/json refuses it: %v", text, err)
	} else if !reflect.DeepEqual(slow, fast) {
		t.Errorf("%s: read as\n%#v\nencoding/json has\n%#v", text, fast, slow)
	}
	return true
}

// A configuration in which every field says something is read the fast way, as
// one is in which none does: a field that is new has to be read as well.
func TestDecodeConfig(t *testing.T) {
	var full Config
	fill(reflect.ValueOf(&full).Elem())
	for _, c := range []Config{full, {}, {Groups: []ConfigGroup{{}}}} {
		text, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if !same(t, text) {
			t.Errorf("encoding/json has to read %s", text)
		}
		var wide strings.Builder
		e := json.NewEncoder(&wide)
		e.SetIndent("", "\t")
		if err := e.Encode(c); err != nil {
			t.Fatal(err)
		}
		if !same(t, []byte(wide.String())) {
			t.Errorf("encoding/json has to read %s", wide.String())
		}
	}
}

var oddConfigs = []string{
	`{"groups":[{"spec":{"name":"a","name":"b"}}]}`, `{"groups":[{"spec":{"Name":"a"}}]}`, `{"groups":null}`, `{"groups":[null]}`,
	`{"groups":[{"spec":{"priority":-0}}]}`, `{"groups":[{"spec":{"priority":1e3}}]}`, `{"groups":[{"spec":{"priority":1.0}}]}`, `{"groups":[{"spec":{"priority":01}}]}`,
	`{"groups":[{"spec":{"resources":[{"attributes":{"a":[],"b":["x"],"c":[1],"d":null,"e":{"f":1e400}}}]}}]}`,
	`{"groups":[{"spec":{"resources":[{"attributes":{"a":["x",],"b":tru}}]}}]}`, `{"groups":[{"spec":{"resources":null,"preferred_owners":null,"depends_on":[]}}]}`,
	"{\"revision\":1}x", `{"revision":1`, `{"revision":18446744073709551616}`, `{"groups":[{"spec":{"name":"` + "\xff" + `","addr":""}}]}`, `{"members":[{]}]}`, `{"cluster":{"x":}}`,
	`{"groups":[{"spec":{"stop_within":"7"}}]}`, `{"quorum":truee}`, `{"groups":[{"spec":{"name":"a\`, `{} `, ` { "quorum" : true , "groups" : [ ] } `, `[]`, `null`, ``,
}

func TestDecodeConfigOdd(t *testing.T) {
	for _, text := range oddConfigs {
		same(t, []byte(text))
	}
}

func FuzzDecodeConfig(f *testing.F) {
	var full Config
	fill(reflect.ValueOf(&full).Elem())
	text, err := json.Marshal(full)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, text := range oddConfigs {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) { same(t, text) })
}
