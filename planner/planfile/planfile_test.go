package planfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/zclconf/go-cty/cty"

	"github.com/clusterplan/clusterplan/planner"
	"github.com/clusterplan/clusterplan/statefile"
)

// sample is a file with something of everything.
func sample(t testing.TB) *File {
	t.Helper()
	rec := Record(fstest.MapFS{
		"main.cluster.hcl": {Data: []byte("cluster \"c\" {}\n# <&>\n")},
		"files/logo":       {Data: []byte{0xff, 0xfe, 0}},
		"files/empty":      {},
		"files/sub/x":      {Data: []byte("x")},
		"never/asked":      {Data: []byte("secret")},
	})
	for _, name := range []string{"main.cluster.hcl", "files/logo", "files/empty"} {
		if _, err := rec.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".", "files"} {
		if _, err := rec.ReadDir(name); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"files/logo", "files/sub"} {
		if _, err := rec.Stat(name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := rec.Stat("no/such"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	f := &File{
		Program: "0.1.0", Dir: "examples/quickstart", Abs: "/x/examples/quickstart",
		Options: Options{Mode: planner.ModeNormal, Replace: []string{`node.n["a"]`}, AllowQuorumLoss: true},
		RestsOn: RestsOn{Lineage: "L", Serial: 7, Journal: 2, ConfigRevision: 41},
		Sources: rec.Sources(), Plan: json.RawMessage(`{"complete":true,"config_revision":41,"changes":[]}`), Text: "\x1b[1mPlan:\x1b[0m <1> to add\n",
	}
	for _, v := range []struct {
		name  string
		value cty.Value
	}{
		{"any", cty.NullVal(cty.DynamicPseudoType)},
		{"big", cty.MustParseNumberVal("12345678901234567890123456789012345.5")},
		{"list", cty.ListVal([]cty.Value{cty.StringVal("a"), cty.NullVal(cty.String)})},
		{"none", cty.ListValEmpty(cty.DynamicPseudoType)},
		{"object", cty.ObjectVal(map[string]cty.Value{"a": cty.True, "m": cty.MapVal(map[string]cty.Value{"k": cty.NumberIntVal(1)})})},
		{"text", cty.StringVal("<\"é\x01>")},
	} {
		one, err := VariableOf(v.name, v.value)
		if err != nil {
			t.Fatal(err)
		}
		back, err := one.Cty()
		if err != nil || !back.RawEquals(v.value) {
			t.Fatalf("var.%s: %#v, %v", v.name, back, err)
		}
		f.Variables = append(f.Variables, one)
	}
	return f
}

func bytesOf(t testing.TB, f *File) []byte {
	t.Helper()
	data, err := Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRoundTrip(t *testing.T) {
	f := sample(t)
	data := bytesOf(t, f)
	got, err := Unmarshal(data)
	if err != nil {
		t.Fatalf("%v\n%s", err, data)
	}
	if diff := cmp.Diff(f, got); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(data, bytesOf(t, got)) || !bytes.Equal(data, bytesOf(t, sample(t))) {
		t.Error("the same plan gives other bytes")
	}
	if !IsPlan(data[:64]) || IsPlan([]byte("{\n")) {
		t.Error("a plan file is not told from others")
	}
}

// The file's directory answers as the real one did, and knows nothing else.
func TestHeld(t *testing.T) {
	f, err := Unmarshal(bytesOf(t, sample(t)))
	if err != nil {
		t.Fatal(err)
	}
	fsys := f.FS()
	for name, want := range map[string]string{"main.cluster.hcl": "cluster \"c\" {}\n# <&>\n", "files/logo": "\xff\xfe\x00", "files/empty": ""} {
		if data, err := fs.ReadFile(fsys, name); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	entries, err := fs.ReadDir(fsys, "files")
	if err != nil || len(entries) != 3 || entries[2].Name() != "sub" || !entries[2].IsDir() || entries[0].IsDir() || !entries[1].Type().IsRegular() {
		t.Errorf("%v, %v", entries, err)
	}
	if info, err := fs.Stat(fsys, "files/logo"); err != nil || !info.Mode().IsRegular() || info.Name() != "logo" || info.Size() != 3 {
		t.Errorf("%v, %v", info, err)
	}
	if info, err := fs.Stat(fsys, "files/sub"); err != nil || !info.IsDir() {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := fs.Stat(fsys, "no/such"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	for _, name := range []string{"never/asked", "files/sub/x"} {
		if data, err := fs.ReadFile(fsys, name); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "does not hold it") {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if _, err := fs.ReadFile(fsys, "../etc/passwd"); !errors.Is(err, fs.ErrInvalid) {
		t.Error(err)
	}
	walked := 0
	if err := fs.WalkDir(fsys, "files", func(name string, d fs.DirEntry, err error) error {
		if walked++; name == "files/sub" {
			return fs.SkipDir // it was not listed
		}
		return err
	}); err != nil || walked != 4 {
		t.Errorf("walked %d: %v", walked, err)
	}
}

// What is read twice is the same both times.
func TestRecorderKeepsWhatItRead(t *testing.T) {
	dir := fstest.MapFS{"a": {Data: []byte("1")}}
	rec := Record(dir)
	if _, err := rec.ReadDir("."); err != nil {
		t.Fatal(err)
	}
	if _, err := rec.ReadFile("a"); err != nil {
		t.Fatal(err)
	}
	dir["a"], dir["b"] = &fstest.MapFile{Data: []byte("2")}, &fstest.MapFile{}
	data, err := rec.ReadFile("a")
	entries, _ := rec.ReadDir(".")
	if err != nil || string(data) != "1" || len(entries) != 1 {
		t.Errorf("%q, %d entries, %v", data, len(entries), err)
	}
	data[0] = '3' // the caller's own
	if again, _ := rec.ReadFile("a"); string(again) != "1" {
		t.Errorf("%q", again)
	}
}

// seal gives a text that was changed the checksum of its bytes.
func seal(text string) []byte {
	at := strings.LastIndex(text, checksumStart)
	return []byte(text[:at] + checksumOf([]byte(text[:at])))
}

func TestUnmarshalErrors(t *testing.T) {
	good := string(bytesOf(t, sample(t)))
	change := func(old, new string) []byte {
		t.Helper()
		if !strings.Contains(good, old) {
			t.Fatalf("the file has no %q", old)
		}
		return seal(strings.Replace(good, old, new, 1))
	}
	for _, c := range []struct {
		name  string
		data  []byte
		is    error
		words string
	}{
		{"empty", nil, ErrNotPlan, "nothing in it"},
		{"a definition", []byte("cluster \"c\" {\n}\n"), ErrNotPlan, "no plan file of clusterplan's"},
		{"Terraform's", []byte("PK\x03\x04\x14\x00"), ErrNotPlan, "no plan file"},
		{"a state", []byte(`{"format_version": "1.0", "serial": 1}`), ErrNotPlan, "no plan file"},
		{"cut", []byte(good[:len(good)/2]), ErrDamaged, "its end is missing"},
		{"cut in its checksum", []byte(good[:len(good)-9]), ErrDamaged, "its checksum"},
		{"cut early", []byte(good[:len(beginning)+3]), ErrDamaged, "its end is missing"},
		{"a byte changed", []byte(strings.Replace(good, `"serial":7`, `"serial":8`, 1)), ErrDamaged, "something other than clusterplan changed it"},
		{"something behind", []byte(good + "\n"), ErrDamaged, "checksum"},
		{"next minor", change(`"format_version": "1.0"`, `"format_version": "1.1"`), ErrNewer, "clusterplan 0.1.0, in format 1.1; this program reads up to 1.0"},
		{"next major, of another shape", []byte(`{"kind": "clusterplan plan", "format_version": "2.0", "program": "3.0.0", "variables": 3}`), ErrNewer, "clusterplan 3.0.0"},
		{"no version", change(`"format_version": "1.0"`, `"format_version": "1"`), ErrDamaged, `format_version is "1"`},
		{"a wrong type", change(`"serial":7`, `"serial":"7"`), ErrDamaged, "serial"},
		{"a mode of none", change(`"mode":"normal"`, `"mode":"merry"`), ErrDamaged, `mode "merry"`},
		{"no plan", change(`"plan": {`, `"plans": {`), ErrDamaged, "lacks the plan"},
		{"no variables", change(`"variables": [`, `"variable": [`), ErrDamaged, "a list is missing"},
		{"a variable twice", change(`"name":"big"`, `"name":"any"`), ErrDamaged, "or twice"},
		{"a variable of no type", change(`["list","string"]`, `["list","strong"]`), ErrDamaged, "var.list"},
		{"a type that panics", change(`["list","string"]`, `["object",{},["x"]]`), ErrDamaged, "var.list"},
		{"a type too deep", change(`["list","string"]`, strings.Repeat(`["list",`, 129)+`"string"`+strings.Repeat("]", 129)), ErrDamaged, "nested deeper"},
		{"a number of a billion digits", change("12345678901234567890123456789012345.5", "1e1000000000"), ErrDamaged, "exponent"},
		{"a path out of the directory", change(`"path":"no/such"`, `"path":"no/../../x"`), ErrDamaged, "no path in a directory"},
		{"an entry out of the directory", change(`"name":"sub"`, `"name":"../x"`), ErrDamaged, "lists"},
		{"an address of none", change(`node.n[`, `nude.n[`), ErrDamaged, "nude"},
		{"a list of other things", change(`"sources": [`, `"sources": [0,`), ErrDamaged, "number"},
	} {
		_, err := Unmarshal(c.data)
		if !errors.Is(err, c.is) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for i := range good { // every bit counts
		bad := []byte(good)
		bad[i] ^= 4
		if _, err := Unmarshal(bad); err == nil {
			t.Fatalf("byte %d changed, and nobody saw it", i)
		}
	}
}

// allocated is what f takes, all in all.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A file that was made to hurt takes memory as its size, and no more.
func TestMemory(t *testing.T) {
	good := string(bytesOf(t, sample(t)))
	const size = 1 << 17
	for name, data := range map[string][]byte{
		"zeros for sources":      seal(strings.Replace(good, `"sources": [`, `"sources": [`+strings.Repeat("0,", size), 1)),
		"nothings for sources":   seal(strings.Replace(good, `"sources": [`, `"sources": [`+strings.Repeat("{},", size), 1)),
		"zeros for entries":      seal(strings.Replace(good, `"entries":[`, `"entries":[`+strings.Repeat("0,", size), 1)),
		"nothings for entries":   seal(strings.Replace(good, `"entries":[`, `"entries":[`+strings.Repeat("{},", size), 1)),
		"nothings for variables": seal(strings.Replace(good, `"variables": [`, `"variables": [`+strings.Repeat("null,", size), 1)),
		"zeros for addresses":    seal(strings.Replace(good, `"replace":[`, `"replace":[`+strings.Repeat("0,", size), 1)),
		"a deep list":            seal(strings.Replace(good, `"plan": {`, `"plan": {"x":`+strings.Repeat("[", size)+strings.Repeat("]", size)+",", 1)),
		"a deep type":            seal(strings.Replace(good, `["list","string"]`, strings.Repeat(`["list",`, 9000)+`"string"`+strings.Repeat("]", 9000), 1)),
		"changes of nothing":     seal(strings.Replace(good, `"changes":[`, `"changes":[`+strings.Repeat("0,", size)+"0", 1)),
		"a long text":            seal(strings.Replace(good, `"text": "`, `"text": "`+strings.Repeat(`\u0000`, size), 1)),
	} {
		var err error
		took := allocated(func() {
			var f *File
			if f, err = Unmarshal(data); err == nil {
				_, err = f.StalePlan(&planner.Plan{ConfigRevision: 41})
			}
		})
		if limit := uint64(8<<20 + 200*len(data)); took > limit {
			t.Errorf("%s: %d bytes took %d: %v", name, len(data), took, err)
		}
	}
}

func TestStaleState(t *testing.T) {
	f := sample(t)
	for _, c := range []struct {
		program string
		lineage string
		serial  uint64
		journal int
		words   string
	}{
		{"0.1.0", "L", 7, 2, ""},
		{"0.2.0", "L", 7, 2, "clusterplan 0.1.0 made it, and this is 0.2.0"},
		{"0.1.0", "M", 7, 2, "another one"},
		{"0.1.0", "", 0, 0, "there is none now"},
		{"0.1.0", "L", 8, 0, "serial 8 now, not 7"},
		{"0.1.0", "L", 7, 3, "an apply was begun"},
	} {
		why := f.StaleState(c.program, &statefile.State{Lineage: c.lineage, Serial: c.serial}, c.journal)
		if (why == "") != (c.words == "") || !strings.Contains(why, c.words) {
			t.Errorf("%+v: %q", c, why)
		}
	}
	f.RestsOn = RestsOn{}
	if why := f.StaleState("0.1.0", &statefile.State{Lineage: "L", Serial: 1}, 0); !strings.Contains(why, "there is one now") {
		t.Error(why)
	}
}

// Whatever bytes are read, there is an error or a file that can be used and
// writes itself back. sealed: the checksum is made to fit, as a forger would.
func FuzzUnmarshal(f *testing.F) {
	good := bytesOf(f, sample(f))
	f.Add(good, false)
	f.Add(good[:len(good)/2], false)
	body := good[:bytes.LastIndex(good, []byte(checksumStart))]
	f.Add(body, true)
	f.Add([]byte(`{"kind":"clusterplan plan","format_version":"2.0",`), true)
	f.Fuzz(func(t *testing.T, data []byte, sealed bool) {
		if sealed {
			data = append(bytes.Clone(data), checksumOf(data)...)
		}
		file, err := Unmarshal(data)
		if err != nil {
			if !errors.Is(err, ErrNotPlan) && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNewer) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		for i := range file.Variables {
			if _, err := file.Variables[i].Cty(); err != nil {
				t.Fatal(err)
			}
		}
		fsys := file.FS()
		for _, s := range file.Sources {
			_, _ = fs.ReadFile(fsys, s.Path)
			_, _ = fs.ReadDir(fsys, s.Path)
			_, _ = fs.Stat(fsys, s.Path)
			if o, err := fsys.Open(s.Path); err == nil {
				_, _ = o.Stat()
				_ = o.Close()
			}
		}
		_ = file.StaleState("0.1.0", &statefile.State{}, 0)
		_, _ = file.StalePlan(&planner.Plan{ConfigRevision: file.RestsOn.ConfigRevision})
		again, err := Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Unmarshal(again); err != nil {
			t.Fatalf("written back it is refused: %v", err)
		}
	})
}
