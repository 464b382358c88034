// Package addr holds the addresses of objects: `cluster`, `node.n["a"]`,
// `group.sql`, `group.sql.resource.vip["a"]`, each with `module.m["k"].` in
// front where it comes from a module.
//
// An Address is a small comparable value: it can be a map key and a vertex of
// a graph. Its String is canonical: Parse(a.String()) == a.
package addr

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
)

// Object types that an address can name.
const (
	TypeCluster   = "cluster"
	TypeNode      = "node"
	TypeFence     = "fence"
	TypeGroup     = "group"
	TypeMachine   = "machine"
	TypeNetwork   = "network"
	TypeVolume    = "volume"
	TypeGuarantee = "guarantee"
	TypeOutput    = "output"
)

// Machinery tells whether a type is of what nodes stand on: machines, their
// networks and volumes. Their provider makes them, no agent knows them.
func Machinery(typ string) bool {
	return typ == TypeMachine || typ == TypeNetwork || typ == TypeVolume
}

// Key is an instance key: none, a number (count) or a string (for_each). It is
// small, for there are two in each of many addresses.
type Key struct {
	text string // "" none, "i" and a number, "s" and a string
}

// NoKey is the key of an object without count and for_each.
var NoKey = Key{}

// IntKey is the key of the i-th instance of an object with count.
func IntKey(i int) Key { return Key{"i" + strconv.Itoa(i)} }

// StringKey is the key of one instance of an object with for_each.
func StringKey(s string) Key { return Key{"s" + s} }

// kind is 'i' of a number, 's' of a string, 0 of none.
func (k Key) kind() byte {
	if k.text == "" {
		return 0
	}
	return k.text[0]
}

// IsNone tells whether there is no key.
func (k Key) IsNone() bool { return k.text == "" }

// Int returns the number of a count key.
func (k Key) Int() (int, bool) {
	if k.kind() != 'i' {
		return 0, false
	}
	n, err := strconv.Atoi(k.text[1:])
	return n, err == nil
}

// Str returns the string of a for_each key.
func (k Key) Str() (string, bool) {
	if k.kind() != 's' {
		return "", false
	}
	return k.text[1:], true
}

// Plain is the key without brackets and quotes, for names: `a`, `0`, or "".
func (k Key) Plain() string {
	if k.IsNone() {
		return ""
	}
	return k.text[1:]
}

// String is the key as it stands in an address: `["a"]`, `[0]`, or "".
func (k Key) String() string {
	switch k.kind() {
	case 'i':
		return "[" + k.text[1:] + "]"
	case 's':
		return "[" + strconv.Quote(k.text[1:]) + "]"
	}
	return ""
}

func compareKeys(a, b Key) int {
	if a == b {
		return 0
	}
	x, _ := a.Int()
	y, _ := b.Int()
	return cmp.Or(cmp.Compare(a.kind(), b.kind()), cmp.Compare(x, y), cmp.Compare(a.text, b.text))
}

// Address names one object, or one resource in a group.
type Address struct {
	Module      string // canonical module path, `module.m["k"].module.n`, or ""
	Type        string // one of the Type constants
	Name        string // label; "" for the cluster
	Key         Key
	Resource    string // name of a resource in a group; of a node that is deposed its id; else ""
	ResourceKey Key
}

// Cluster is the address of the cluster.
func Cluster() Address { return Address{Type: TypeCluster} }

// Node is the address of a node in the root module.
func Node(name string, key Key) Address { return Address{Type: TypeNode, Name: name, Key: key} }

// Group is the address of a group in the root module.
func Group(name string, key Key) Address { return Address{Type: TypeGroup, Name: name, Key: key} }

// Fence is the address of a fence in the root module.
func Fence(name string, key Key) Address { return Address{Type: TypeFence, Name: name, Key: key} }

// WithResource is the address of a resource of the group a.
func (a Address) WithResource(name string, key Key) Address {
	a.Resource, a.ResourceKey = name, key
	return a
}

// Owner is the address of the object that holds a: the group of a resource,
// a itself for everything else.
func (a Address) Owner() Address {
	if a.IsResource() {
		a.Resource, a.ResourceKey = "", NoKey
	}
	return a
}

// IsResource tells whether a names a resource in a group.
func (a Address) IsResource() bool { return a.Resource != "" && a.Type != TypeNode }

// Depose is the address of the node id that another node takes the place of,
// until it is gone: `node.n1 (deposed 5f1d0c6e)`. The successor has a itself.
func (a Address) Depose(id string) Address {
	a.Resource = id
	return a
}

// Deposed is the id of the node that a names, where another one has taken its
// place; else "".
func (a Address) Deposed() string {
	if a.Type != TypeNode {
		return ""
	}
	return a.Resource
}

// Current is the address that a deposed node had, and its successor has; a
// itself for everything else.
func (a Address) Current() Address {
	if a.Type == TypeNode {
		a.Resource = ""
	}
	return a
}

// DefaultName is the name of an object whose definition gives none: its label,
// with the key behind it (`n1`, `n-a`), modules in front. Of a resource it is
// the name within the group.
func (a Address) DefaultName() string {
	name, key := a.Name, a.Key
	if a.IsResource() {
		name, key = a.Resource, a.ResourceKey
	}
	if !key.IsNone() {
		name += "-" + key.Plain()
	}
	if a.Module != "" && !a.IsResource() {
		name = moduleName.Replace(a.Module) + "-" + name
	}
	return name
}

var moduleName = strings.NewReplacer(".module.", "-", "module.", "", "[", "-", "]", "", `"`, "")

// WithoutKey is the address of the block that a is an instance of.
func (a Address) WithoutKey() Address {
	if a.IsResource() {
		a.ResourceKey = NoKey
	} else {
		a.Key = NoKey
	}
	return a
}

// Arg is the canonical form as an argument in a shell's command line: keys need quotes.
func (a Address) Arg() string {
	text := a.String()
	if !strings.ContainsAny(text, "\"[]() '\\$`") {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// String is the canonical form.
func (a Address) String() string {
	var b strings.Builder
	if a.Module != "" {
		b.WriteString(a.Module)
		b.WriteByte('.')
	}
	if a.Type == "" { // the whole module
		return a.Module
	}
	b.WriteString(a.Type)
	if a.Name != "" {
		b.WriteByte('.')
		b.WriteString(a.Name)
		b.WriteString(a.Key.String())
	}
	if id := a.Deposed(); id != "" {
		b.WriteString(deposed)
		b.WriteString(id)
		b.WriteByte(')')
		return b.String()
	}
	if a.Resource != "" {
		b.WriteString(".resource.")
		b.WriteString(a.Resource)
		b.WriteString(a.ResourceKey.String())
	}
	return b.String()
}

// deposed stands before the id of a deposed node.
const deposed = " (deposed "

// MarshalText is the canonical form.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is Parse; no text is the zero Address, whose text it is.
func (a *Address) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*a = Address{}
		return nil
	}
	p, err := Parse(string(text))
	if err != nil {
		return err
	}
	*a = p
	return nil
}

// Compare orders addresses for people: module, type, name, key, resource;
// number keys by value.
func Compare(a, b Address) int {
	return cmp.Or(
		compareModules(a.Module, b.Module), cmp.Compare(typeRank(a.Type), typeRank(b.Type)),
		cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name), compareKeys(a.Key, b.Key),
		cmp.Compare(a.Resource, b.Resource), compareKeys(a.ResourceKey, b.ResourceKey))
}

// Objects read best in the order in which they are built.
func typeRank(t string) int {
	switch t {
	case TypeNetwork:
		return 0
	case TypeVolume:
		return 1
	case TypeMachine:
		return 2
	case TypeCluster:
		return 3
	case TypeNode:
		return 4
	case TypeFence:
		return 5
	case TypeGroup:
		return 6
	}
	return 7
}

// Parse reads an address. The error says what was wrong and where.
func Parse(s string) (Address, error) {
	p := parser{in: s}
	a, err := p.address()
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	return a, nil
}

// ParseTarget reads the address of an object or of a whole module, whose Type
// is "".
func ParseTarget(s string) (Address, error) {
	p := parser{in: s, whole: true}
	a, err := p.address()
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", s, err)
	}
	return a, nil
}

type parser struct {
	whole bool // a module is well, too

	in  string
	pos int
}

func (p *parser) address() (Address, error) {
	var a Address
	var modules []string
	for {
		word, err := p.word()
		if err != nil {
			return a, err
		}
		if word != "module" {
			a.Type = word
			break
		}
		if err := p.dot("a module's name"); err != nil {
			return a, err
		}
		name, key, err := p.nameKey()
		if err != nil {
			return a, err
		}
		modules = append(modules, "module."+name+key.String())
		if p.whole && p.pos == len(p.in) {
			return Address{Module: strings.Join(modules, ".")}, nil
		}
		if err := p.dot("an object's type"); err != nil {
			return a, err
		}
	}
	a.Module = strings.Join(modules, ".")
	switch a.Type {
	case TypeCluster:
		if len(modules) > 0 {
			return a, fmt.Errorf("the cluster stands in the root module only")
		}
		return a, p.end()
	case TypeNode, TypeFence, TypeGroup, TypeMachine, TypeNetwork, TypeVolume, TypeGuarantee, TypeOutput:
	default:
		if len(modules) == 0 && p.pos == len(p.in) {
			return a, fmt.Errorf("%q has no type in front; write group.%s or node.%s", a.Type, a.Type, a.Type)
		}
		return a, fmt.Errorf("%q is no object type; use cluster, network, volume, machine, node, fence, group, guarantee or output", a.Type)
	}
	if err := p.dot("a name"); err != nil {
		return a, err
	}
	var err error
	if a.Name, a.Key, err = p.nameKey(); err != nil {
		return a, err
	}
	if id, ok := strings.CutPrefix(p.in[p.pos:], deposed); ok && a.Type == TypeNode {
		id, closed := strings.CutSuffix(id, ")")
		if !closed || id == "" || strings.ContainsFunc(id, func(r rune) bool { return r > 127 || !isNameByte(byte(r), false) }) {
			return a, fmt.Errorf("a deposed node is written node.NAME (deposed ID)")
		}
		return a.Depose(id), nil
	}
	if a.Type != TypeGroup || p.pos == len(p.in) {
		return a, p.end()
	}
	if err := p.dot("resource"); err != nil {
		return a, err
	}
	word, err := p.word()
	if err != nil {
		return a, err
	}
	if word != "resource" {
		return a, fmt.Errorf("a group's part is written group.NAME.resource.NAME, not .%s", word)
	}
	if err := p.dot("a resource's name"); err != nil {
		return a, err
	}
	if a.Resource, a.ResourceKey, err = p.nameKey(); err != nil {
		return a, err
	}
	return a, p.end()
}

func (p *parser) end() error {
	if p.pos != len(p.in) {
		return fmt.Errorf("unexpected %q at character %d", p.in[p.pos:], p.pos+1)
	}
	return nil
}

func (p *parser) dot(next string) error {
	if p.pos >= len(p.in) || p.in[p.pos] != '.' {
		return fmt.Errorf("expected . and %s at character %d", next, p.pos+1)
	}
	p.pos++
	return nil
}

func (p *parser) word() (string, error) {
	start := p.pos
	for p.pos < len(p.in) && isNameByte(p.in[p.pos], p.pos == start) {
		p.pos++
	}
	if p.pos == start {
		return "", fmt.Errorf("expected a name at character %d", start+1)
	}
	return p.in[start:p.pos], nil
}

// Names are HCL identifiers in ASCII: a letter or _, then letters, digits, _ and -.
func isNameByte(c byte, first bool) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '_':
		return true
	case c >= '0' && c <= '9', c == '-':
		return !first
	}
	return false
}

func (p *parser) nameKey() (string, Key, error) {
	name, err := p.word()
	if err != nil || p.pos >= len(p.in) || p.in[p.pos] != '[' {
		return name, NoKey, err
	}
	rest := p.in[p.pos+1:]
	if strings.HasPrefix(rest, `"`) {
		quoted, err := strconv.QuotedPrefix(rest)
		if err != nil {
			return name, NoKey, fmt.Errorf("the key at character %d has no closing quote", p.pos+2)
		}
		str, err := strconv.Unquote(quoted)
		if err != nil {
			return name, NoKey, fmt.Errorf("the key at character %d: %w", p.pos+2, err)
		}
		if !strings.HasPrefix(rest[len(quoted):], "]") {
			return name, NoKey, fmt.Errorf("expected ] after the key at character %d", p.pos+2)
		}
		p.pos += 1 + len(quoted) + 1
		return name, StringKey(str), nil
	}
	digits, _, ok := strings.Cut(rest, "]")
	num, err := strconv.Atoi(digits)
	if !ok || err != nil || num < 0 || strconv.Itoa(num) != digits {
		return name, NoKey, fmt.Errorf(`the key at character %d is neither a number from 0 nor a quoted string; in a shell, quote the whole address: 'node.n["a"]'`, p.pos+2)
	}
	p.pos += 1 + len(digits) + 1
	return name, IntKey(num), nil
}
