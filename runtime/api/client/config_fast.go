package client

import (
	"bytes"
	"encoding"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/clusterplan/clusterplan/lang/spec"
)

// Most of a large cluster's configuration is groups and their resources, and
// encoding/json reads each of their bytes twice and finds each field by
// reflection. What follows reads them by name. Whatever it doesn't know (a field,
// a null, a field that stands twice) it leaves to encoding/json as a whole; a fuzz
// test holds the two to the same result.

// decodeConfig is json.Unmarshal into a zero Config. False: encoding/json is to
// say what it is.
func decodeConfig(text []byte, to *Config) bool {
	s := &scan{text: text, known: map[string]string{}, spans: map[string]spec.Duration{}}
	var c Config
	ok := s.fields(func(name []byte) bool {
		switch string(name) {
		case "format_version":
			return s.once(0) && s.string(&c.FormatVersion)
		case "revision":
			return s.once(1) && s.uint(&c.Revision)
		case "config_revision":
			return s.once(2) && s.uint(&c.ConfigRevision)
		case "quorum":
			return s.once(3) && s.bool(&c.Quorum)
		case "cluster":
			return s.once(4) && s.other(&c.Cluster)
		case "members":
			return s.once(5) && s.other(&c.Members)
		case "groups":
			if !s.once(6) {
				return false
			}
			if s.null() {
				return true
			}
			const shortest = 200 // bytes that a group takes at the least
			c.Groups = make([]ConfigGroup, 0, min(bytes.Count(s.text[s.pos:], []byte(`{"spec":`)), 1+len(text)/shortest))
			return s.elements(func() bool {
				c.Groups = append(c.Groups, ConfigGroup{})
				return s.group(&c.Groups[len(c.Groups)-1])
			})
		case "fences":
			return s.once(7) && s.other(&c.Fences)
		case "change":
			return s.once(8) && s.other(&c.Change)
		}
		return false
	})
	if s.blanks(); !ok || s.pos != len(s.text) {
		return false
	}
	*to = c
	return true
}

func (s *scan) group(g *ConfigGroup) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "spec":
			return s.once(0) && s.spec(&g.Spec)
		case "want":
			return s.once(1) && s.word(&g.Want)
		case "want_by":
			return s.once(2) && s.other(&g.WantBy)
		case "move":
			return s.once(3) && s.other(&g.Move)
		case "owner":
			return s.once(4) && s.word(&g.Owner)
		case "epoch":
			return s.once(5) && s.uint(&g.Epoch)
		case "home":
			return s.once(7) && s.word(&g.Home)
		case "state":
			return s.once(6) && s.word(&g.State)
		}
		return false
	})
}

func (s *scan) spec(g *spec.Group) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "id":
			return s.once(0) && s.string(&g.ID)
		case "addr":
			return s.once(1) && s.value(&g.Addr)
		case "name":
			return s.once(2) && s.string(&g.Name)
		case "description":
			return s.once(3) && s.string(&g.Description)
		case "preferred_owners":
			return s.once(4) && s.words(&g.PreferredOwners)
		case "possible_owners":
			return s.once(5) && s.words(&g.PossibleOwners)
		case "priority":
			return s.once(6) && s.int(&g.Priority)
		case "demand":
			return s.once(7) && s.other(&g.Demand)
		case "depends_on":
			return s.once(8) && s.words(&g.DependsOn)
		case "keep_apart":
			return s.once(9) && s.words(&g.KeepApart)
		case "keep_apart_soft":
			return s.once(10) && s.words(&g.KeepApartSoft)
		case "persistent_state":
			return s.once(11) && s.word(&g.PersistentState)
		case "stop_within":
			return s.once(12) && s.span(&g.StopWithin)
		case "no_quorum":
			return s.once(13) && s.word(&g.NoQuorum)
		case "failover":
			return s.once(14) && s.failover(&g.Failover)
		case "failback":
			return s.once(15) && s.failback(&g.Failback)
		case "resources":
			return s.once(16) && s.resources(&g.Resources)
		case "managed_by":
			return s.once(17) && s.word(&g.ManagedBy)
		}
		return false
	})
}

func (s *scan) failover(f *spec.Failover) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "mode":
			return s.once(0) && s.word(&f.Mode)
		case "threshold":
			return s.once(1) && s.int(&f.Threshold)
		case "period":
			return s.once(2) && s.span(&f.Period)
		case "stated":
			return s.once(3) && s.bool(&f.Stated)
		}
		return false
	})
}

func (s *scan) failback(f *spec.Failback) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "mode":
			return s.once(0) && s.word(&f.Mode)
		case "window":
			return s.once(1) && s.word(&f.Window)
		case "timezone":
			return s.once(2) && s.word(&f.Timezone)
		case "delay":
			return s.once(3) && s.span(&f.Delay)
		}
		return false
	})
}

func (s *scan) resources(to *[]spec.Resource) bool {
	if s.null() {
		return true
	}
	s.parts = s.parts[:0]
	if !s.elements(func() bool {
		s.parts = append(s.parts, spec.Resource{})
		return s.resource(&s.parts[len(s.parts)-1])
	}) {
		return false
	}
	*to = append(make([]spec.Resource, 0, len(s.parts)), s.parts...)
	return true
}

func (s *scan) resource(r *spec.Resource) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "id":
			return s.once(0) && s.string(&r.ID)
		case "addr":
			return s.once(1) && s.value(&r.Addr)
		case "name":
			return s.once(2) && s.word(&r.Name)
		case "type":
			return s.once(3) && s.word(&r.Type)
		case "attributes":
			return s.once(4) && s.attributes(&r.Attributes)
		case "depends_on":
			return s.once(5) && s.words(&r.DependsOn)
		case "depends_on_any":
			return s.once(6) && s.words(&r.DependsOnAny)
		case "pending_timeout":
			return s.once(7) && s.span(&r.PendingTimeout)
		case "separate_monitor":
			return s.once(8) && s.bool(&r.SeparateMonitor)
		case "looks_alive":
			return s.once(9) && s.poll(&r.LooksAlive)
		case "is_alive":
			return s.once(10) && s.poll(&r.IsAlive)
		case "restart":
			return s.once(11) && s.restart(&r.Restart)
		case "checkpoint":
			return s.once(12) && s.other(&r.Checkpoint)
		}
		return false
	})
}

func (s *scan) poll(p *spec.Poll) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "interval":
			return s.once(0) && s.span(&p.Interval)
		case "timeout":
			return s.once(1) && s.span(&p.Timeout)
		case "command":
			return s.once(2) && s.words(&p.Command)
		case "tcp":
			return s.once(3) && s.string(&p.TCP)
		case "http":
			return s.once(4) && s.string(&p.HTTP)
		}
		return false
	})
}

func (s *scan) restart(r *spec.Restart) bool {
	return s.fields(func(name []byte) bool {
		switch string(name) {
		case "action":
			return s.once(0) && s.word(&r.Action)
		case "threshold":
			return s.once(1) && s.int(&r.Threshold)
		case "period":
			return s.once(2) && s.span(&r.Period)
		case "delay":
			return s.once(3) && s.span(&r.Delay)
		case "affect_group":
			return s.once(4) && s.bool(&r.AffectGroup)
		}
		return false
	})
}

// scan reads JSON from pos on. Each of its methods says whether it could.
type scan struct {
	text []byte
	pos  int
	seen uint32 // fields of the object that is being read

	known map[string]string // words that stand in many places, one piece of memory each
	spans map[string]spec.Duration
	parts []spec.Resource
}

func (s *scan) blanks() {
	for s.pos < len(s.text) {
		if c := s.text[s.pos]; c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return
		}
		s.pos++
	}
}

// next skips blanks, and takes c if it is what follows.
func (s *scan) next(c byte) bool {
	if s.blanks(); s.pos == len(s.text) || s.text[s.pos] != c {
		return false
	}
	s.pos++
	return true
}

func (s *scan) is(word string) bool {
	if s.blanks(); len(s.text)-s.pos < len(word) || string(s.text[s.pos:s.pos+len(word)]) != word {
		return false
	}
	s.pos += len(word)
	return true
}

func (s *scan) null() bool { return s.is("null") }

// once notes the i-th field of an object. False: it stood there before.
func (s *scan) once(i int) bool {
	if s.seen&(1<<i) != 0 {
		return false
	}
	s.seen |= 1 << i
	return true
}

// fields reads an object; field reads the value of one that is called name.
func (s *scan) fields(field func(name []byte) bool) bool {
	if !s.next('{') {
		return false
	}
	outer := s.seen
	s.seen = 0
	for first := true; !s.next('}'); first = false {
		if !first && !s.next(',') {
			return false
		}
		name, plain := s.quoted()
		if !plain || !s.next(':') || !field(name) {
			return false
		}
	}
	s.seen = outer
	return true
}

// elements reads a list, element by element.
func (s *scan) elements(element func() bool) bool {
	if !s.next('[') {
		return false
	}
	for first := true; !s.next(']'); first = false {
		if !first && !s.next(',') || !element() {
			return false
		}
	}
	return true
}

// quoted is what stands between two quotes. False: it isn't plain ASCII.
func (s *scan) quoted() ([]byte, bool) {
	if !s.next('"') {
		return nil, false
	}
	for i, c := range s.text[s.pos:] {
		switch {
		case c == '"':
			start := s.pos
			s.pos += i + 1
			return s.text[start : start+i], true
		case c < ' ' || c == '\\' || c >= utf8.RuneSelf:
			return nil, false
		}
	}
	return nil, false
}

func (s *scan) string(to *string) bool {
	s.blanks()
	start := s.pos
	if text, ok := s.quoted(); ok {
		*to = string(text)
		return true
	}
	s.pos = start
	return s.pos < len(s.text) && s.text[s.pos] == '"' && s.other(to)
}

// word is string of what is the same in many places.
func (s *scan) word(to *string) bool {
	s.blanks()
	start := s.pos
	text, ok := s.quoted()
	if !ok {
		s.pos = start
		return s.string(to)
	}
	w, ok := s.known[string(text)]
	if !ok {
		const most = 4096 // of more it would be no gain
		if w = string(text); len(s.known) < most {
			s.known[w] = w
		}
	}
	*to = w
	return true
}

func (s *scan) words(to *[]string) bool {
	if s.null() {
		return true
	}
	var some [8]string
	list := some[:0]
	if !s.elements(func() bool {
		list = append(list, "")
		return s.word(&list[len(list)-1])
	}) {
		return false
	}
	*to = append(make([]string, 0, len(list)), list...)
	return true
}

func (s *scan) value(to encoding.TextUnmarshaler) bool {
	var text string // with an escape wherever there is a key
	return s.string(&text) && to.UnmarshalText([]byte(text)) == nil
}

func (s *scan) span(to *spec.Duration) bool {
	text, ok := s.quoted()
	if !ok {
		return false
	}
	d, have := s.spans[string(text)]
	if !have {
		if d.UnmarshalText(text) != nil {
			return false
		}
		s.spans[string(text)] = d
	}
	*to = d
	return true
}

func (s *scan) bool(to *bool) bool {
	if *to = s.is("true"); *to {
		return true
	}
	return s.is("false")
}

// number is the text of a whole number as Go writes it.
func (s *scan) number() string {
	s.blanks()
	start := s.pos
	for s.pos < len(s.text) && (s.text[s.pos] >= '0' && s.text[s.pos] <= '9' || s.text[s.pos] == '-') {
		s.pos++
	}
	return string(s.text[start:s.pos])
}

func (s *scan) int(to *int) bool {
	text := s.number()
	n, err := strconv.Atoi(text)
	*to = n
	return err == nil && strconv.Itoa(n) == text && s.ended()
}

func (s *scan) uint(to *uint64) bool {
	text := s.number()
	n, err := strconv.ParseUint(text, 10, 64)
	*to = n
	return err == nil && strconv.FormatUint(n, 10) == text && s.ended()
}

// ended tells whether a number is at its end.
func (s *scan) ended() bool {
	s.blanks()
	return s.pos < len(s.text) && (s.text[s.pos] == ',' || s.text[s.pos] == '}' || s.text[s.pos] == ']')
}

// attributes reads those of a resource: texts, and lists of them, are most.
func (s *scan) attributes(to *map[string]any) bool {
	if s.null() {
		return true
	}
	out := map[string]any{}
	ok := s.fields(func(name []byte) bool {
		key, have := s.known[string(name)]
		if !have {
			key = string(name)
			s.known[key] = key
		}
		if _, twice := out[key]; twice {
			return false
		}
		v, ok := s.attribute()
		out[key] = v
		return ok
	})
	*to = out
	return ok
}

func (s *scan) attribute() (any, bool) {
	if s.blanks(); s.pos == len(s.text) {
		return nil, false
	}
	switch s.text[s.pos] {
	case '"':
		var text string
		ok := s.string(&text)
		return text, ok
	case '[':
		back := s.pos
		var some [8]any
		list := some[:0]
		if s.elements(func() bool {
			s.blanks()
			var text string
			ok := s.pos < len(s.text) && s.text[s.pos] == '"' && s.word(&text)
			list = append(list, text)
			return ok
		}) {
			return append(make([]any, 0, len(list)), list...), true
		}
		s.pos = back
	case 't':
		return true, s.is("true")
	case 'f':
		return false, s.is("false")
	}
	var v any
	ok := s.other(&v)
	return v, ok
}

// other has encoding/json read a value.
func (s *scan) other(to any) bool {
	s.blanks()
	start, depth := s.pos, 0
	for ; s.pos < len(s.text); s.pos++ {
		switch s.text[s.pos] {
		case '"':
			for s.pos++; s.pos < len(s.text) && s.text[s.pos] != '"'; s.pos++ {
				if s.text[s.pos] == '\\' {
					s.pos++
				}
			}
			if s.pos >= len(s.text) {
				return false
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			if depth--; depth < 0 {
				return json.Unmarshal(s.text[start:s.pos], to) == nil
			}
		case ',':
			if depth == 0 {
				return json.Unmarshal(s.text[start:s.pos], to) == nil
			}
			continue
		default:
			continue
		}
		if depth == 0 {
			s.pos++
			return json.Unmarshal(s.text[start:s.pos], to) == nil
		}
	}
	return false
}
