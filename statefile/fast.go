package statefile

import (
	"bytes"
	"encoding/json"

	"github.com/clusterplan/clusterplan/lang/addr"
)

// Most of a large state is objects, a line each, and encoding/json would read
// each of their bytes several times. What follows reads the lines that Marshal
// writes, for data whose checksum holds: then this program wrote it and what
// stands in it is whole JSON. Attributes share data's memory. Where anything is
// not as Marshal writes it, unmarshalFast says so and encoding/json has it all.

const (
	objectsStart = "  \"objects\": [\n"
	objectsEnd   = "  ],\n"
)

func unmarshalFast(data []byte, s *State) bool {
	start := bytes.Index(data, []byte(objectsStart))
	end := bytes.LastIndex(data, []byte(objectsEnd))
	if start < 0 || end < start+len(objectsStart) {
		return false
	}
	body := data[start+len(objectsStart) : end]
	head := append(bytes.Clone(data[:start]), "  \"objects\": [],\n"...)
	if json.Unmarshal(append(head, data[end+len(objectsEnd):]...), s) != nil {
		return false
	}
	const shortest = 60 // bytes that an object's line has at the least
	s.Objects = make([]Object, 0, min(bytes.Count(body, []byte("\n")), 1+len(body)/shortest))
	for len(body) > 0 {
		text, rest, ok := bytes.Cut(body, []byte("\n"))
		text, comma := bytes.CutSuffix(text, []byte(","))
		s.Objects = append(s.Objects, Object{})
		if !ok || comma != (len(rest) > 0) || !(&scanner{text: text}).object(&s.Objects[len(s.Objects)-1]) {
			return false
		}
		body = rest
	}
	return true
}

// maxDepth is how deep a value may be nested; encoding/json takes no deeper ones either.
const maxDepth = 10_000

type scanner struct {
	text []byte
	pos  int
}

func (s *scanner) object(o *Object) bool {
	var addrs []string
	ok := s.is(`    {"addr":`) && s.address(&o.Addr) &&
		s.is(`,"type":`) && s.string(&o.Type) &&
		s.is(`,"provider":`) && s.string(&o.Provider) &&
		s.is(`,"id":`) && s.string(&o.ID) &&
		s.is(`,"attributes":`) && s.raw(&o.Attributes) &&
		(!s.is(`,"private":`) || s.raw(&o.Private)) &&
		(!s.is(`,"depends_on":`) || s.strings(&addrs)) &&
		(!s.is(`,"phases":`) || s.strings(&o.Phases)) &&
		(!s.is(`,"tainted":`) || s.string(&o.Tainted))
	if s.is(`,"prevent_destroy":true`) {
		o.PreventDestroy = true
	}
	ok = ok && (!s.is(`,"sensitive":`) || s.strings(&o.Sensitive))
	if !ok || !s.is("}") || s.pos != len(s.text) {
		return false
	}
	if addrs != nil {
		o.DependsOn = make([]addr.Address, len(addrs))
		for i := range addrs {
			if addrs[i] == "" || o.DependsOn[i].UnmarshalText([]byte(addrs[i])) != nil {
				return false
			}
		}
	}
	return true
}

func (s *scanner) is(word string) bool {
	if !bytes.HasPrefix(s.text[s.pos:], []byte(word)) {
		return false
	}
	s.pos += len(word)
	return true
}

func (s *scanner) address(a *addr.Address) bool {
	var text string
	return s.string(&text) && a.UnmarshalText([]byte(text)) == nil
}

// string reads a string. Few have escapes.
func (s *scanner) string(to *string) bool {
	var raw json.RawMessage
	if s.pos == len(s.text) || s.text[s.pos] != '"' || !s.raw(&raw) {
		return false
	}
	if bytes.IndexByte(raw, '\\') >= 0 {
		return json.Unmarshal(raw, to) == nil
	}
	*to = string(raw[1 : len(raw)-1])
	return true
}

func (s *scanner) strings(to *[]string) bool {
	if !s.is("[") {
		return false
	}
	*to = []string{}
	for !s.is("]") {
		var one string
		if len(*to) > 0 && !s.is(",") || !s.string(&one) {
			return false
		}
		*to = append(*to, one)
	}
	return true
}

// raw takes one JSON value: up to where its brackets and quotes are closed, or,
// for a number or a word, up to the next comma or bracket.
func (s *scanner) raw(to *json.RawMessage) bool {
	depth, start := 0, s.pos
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; c {
		case '"':
			if !s.quoted() {
				return false
			}
		case '{', '[':
			if depth++; depth > maxDepth {
				return false
			}
			s.pos++
		case '}', ']', ',':
			if depth == 0 {
				*to = s.text[start:s.pos:s.pos]
				return s.pos > start
			}
			if c != ',' {
				depth--
			}
			s.pos++
		default:
			s.pos++
			continue
		}
		if depth == 0 {
			*to = s.text[start:s.pos:s.pos]
			return true
		}
	}
	return false
}

func (s *scanner) quoted() bool {
	for s.pos++; s.pos < len(s.text); s.pos++ {
		switch s.text[s.pos] {
		case '\\':
			s.pos++
		case '"':
			s.pos++
			return true
		}
	}
	return false
}
