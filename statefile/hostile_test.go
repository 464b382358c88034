package statefile

import (
	"fmt"
	"hash/crc32"
	"runtime"
	"strings"
	"testing"
)

// sealed is text with the checksum of a snapshot.
func sealed(text string) []byte { return []byte(text + checksumOf([]byte(text))) }

func record(text string) []byte {
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum([]byte(text), castagnoli), text)
}

// Files that are made to hurt are refused, or read, within a bound of their size.
func TestHostileFiles(t *testing.T) {
	const n = 100_000
	head := "{\n  \"format_version\": \"1.3\",\n  \"program\": \"x\",\n  \"serial\": 1,\n  \"lineage\": \"a\",\n  \"definition\": {},\n"
	objects := func(s string) []byte { return sealed(head + "  \"objects\": " + s + ",\n") }
	object := `{"addr":"node.n","type":"node","provider":"p","id":"i","attributes":%s%s}`
	deep := strings.Repeat("[", n) + strings.Repeat("]", n)
	snapshots := map[string][]byte{
		"empty objects":   objects("[" + strings.Repeat("{},", n) + "{}]"),
		"null objects":    objects("[" + strings.Repeat("null,", n) + "null]"),
		"lines":           objects("[\n" + strings.Repeat("    {},\n", n) + "  ]"),
		"deep":            objects("[" + fmt.Sprintf(object, deep, "") + "]"),
		"deep in a line":  objects("[\n    " + fmt.Sprintf(object, deep, "") + "\n  ]"),
		"dependencies":    objects("[" + fmt.Sprintf(object, "{}", `,"depends_on":[`+strings.Repeat(`"",`, n)+`""]`) + "]"),
		"one key, often":  objects("[" + fmt.Sprintf(object, "{"+strings.Repeat(`"a":1,`, n)+`"a":1}`, "") + "]"),
		"empty history":   sealed(head + "  \"history\": [" + strings.Repeat("{},", n) + "{}],\n  \"objects\": [],\n"),
		"moves in it":     sealed(head + "  \"history\": [{\"moved\":{\"moves\":[" + strings.Repeat("{},", n) + "{}]}}],\n  \"objects\": [],\n"),
		"huge serial":     sealed("{\n  \"format_version\": \"1.3\",\n  \"serial\": 1e999999999,\n"),
		"a long word":     []byte(strings.Repeat("x", n)),
		"open brackets":   []byte(strings.Repeat("{\"a\":", n)),
		"many checksums":  []byte(strings.Repeat(checksumStart, n/10)),
		"no end of lists": []byte(head + `"objects": [` + strings.Repeat(`{"addr":"node.n"},`, n/10)),
	}
	journals := map[string][]byte{
		"moves of nothing": record(`{"moved":{"moves":[` + strings.Repeat("{},", n) + `{}]}}`),
		"deep":             record(`{"result":{"object":{"attributes":` + deep + `}}}`),
		"a long line":      []byte(strings.Repeat("0", n)),
		"empty lines":      []byte(strings.Repeat("\n", n)),
		"newer":            record(`{"begin":{"format":"7.0"}}`),
	}
	within := func(name string, data []byte, read func() error) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := read()
		runtime.ReadMemStats(&after)
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(1<<20+80*len(data)); used > most {
			t.Errorf("%s: %d bytes were taken for %d (%v)", name, used, len(data), err)
		}
		if err == nil && name != "one key, often" && name != "journal: a long line" {
			t.Errorf("%s: taken for good", name)
		}
	}
	for name, data := range snapshots {
		within(name, data, func() error { _, err := Unmarshal(data); return err })
		within(name, data, func() error { _, err := UnmarshalForeign(data); return err })
	}
	for name, data := range journals {
		within("journal: "+name, data, func() error { _, err := DecodeJournal(data, nil); return err })
	}
}
