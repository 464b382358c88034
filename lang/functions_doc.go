package lang

import (
	"strings"
	"sync"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

// Function describes a function that expressions can call.
type Function struct {
	Name      string
	Signature string // name(parameter type, ...) type, as people write it
	Doc       string
}

// Functions describes all functions, by name, but for those that are there only
// to be refused.
func Functions() []Function { return describedFunctions() }

// Made when it is asked for: an agent has no need of it.
var describedFunctions = sync.OnceValue(func() []Function {
	all := functions(nil)
	var out []Function
	for _, name := range sortedKeys(all) {
		if _, refused := refusedFunctions[name]; !refused {
			out = append(out, Function{name, signature(name, all[name]), functionDocs[name]})
		}
	}
	return out
})

func signature(name string, f function.Function) string {
	var params []string
	types := make([]cty.Type, len(f.Params()))
	for i, p := range f.Params() {
		types[i] = p.Type
		params = append(params, p.Name+" "+typeWord(p.Type))
	}
	if v := f.VarParam(); v != nil {
		params = append(params, v.Name+" "+typeWord(v.Type)+"...")
	}
	out := name + "(" + strings.Join(params, ", ") + ")"
	if t, err := f.ReturnType(types); err == nil && t != cty.DynamicPseudoType {
		out += " " + typeWord(t)
	}
	return out
}

func typeWord(t cty.Type) string {
	if t == cty.DynamicPseudoType || t.HasDynamicTypes() {
		return "any"
	}
	return t.FriendlyNameForConstraint()
}

// functionDocs says what each function gives.
var functionDocs = map[string]string{
	"abs":              "The number without its sign.",
	"alltrue":          "True if every element of the list is true; of an empty list, true.",
	"anytrue":          "True if an element of the list is true; of an empty list, false.",
	"base64decode":     "The text that is written in base64.",
	"base64encode":     "The text in base64.",
	"base64gunzip":     "The text that base64gzip has packed.",
	"base64gzip":       "The text packed with gzip, in base64.",
	"base64sha256":     "The SHA-256 digest of the text, in base64.",
	"base64sha512":     "The SHA-512 digest of the text, in base64.",
	"basename":         "The last part of a path.",
	"can":              "True if the expression has a value, false if it is an error.",
	"ceil":             "The next whole number that is not below.",
	"chomp":            "The text without the line ends behind it.",
	"chunklist":        "The list cut into lists of that many elements.",
	"cidrhost":         "An address in a subnet by its number: cidrhost(\"10.0.0.0/24\", 5) is 10.0.0.5. Below 0 it counts from the end.",
	"cidrnetmask":      "The netmask of an IPv4 subnet.",
	"cidrsubnet":       "A part of a subnet: newbits more of prefix, and which of these.",
	"cidrsubnets":      "Parts of a subnet, one behind the other, each with so many more bits of prefix.",
	"coalesce":         "The first argument that is neither null nor an empty string.",
	"coalescelist":     "The first argument that is not an empty list.",
	"compact":          "The list of strings without empty ones and nulls.",
	"concat":           "The lists one behind the other.",
	"contains":         "True if the list or set has the value.",
	"csvdecode":        "The lines of a CSV text as objects, by its header.",
	"dirname":          "The path without its last part.",
	"distinct":         "The list without what it has already.",
	"element":          "The element of a list by its number, which begins anew at the end.",
	"endswith":         "True if the text ends so.",
	"file":             "The text of a file of the definition's directory.",
	"filebase64":       "The bytes of a file, in base64.",
	"filebase64sha256": "The SHA-256 digest of a file, in base64.",
	"filebase64sha512": "The SHA-512 digest of a file, in base64.",
	"fileexists":       "True if there is such a file.",
	"filemd5":          "The MD5 digest of a file, in hex.",
	"fileset":          "The files in a directory whose paths match a pattern: *, ? and ** for any directories.",
	"filesha1":         "The SHA-1 digest of a file, in hex.",
	"filesha256":       "The SHA-256 digest of a file, in hex.",
	"filesha512":       "The SHA-512 digest of a file, in hex.",
	"flatten":          "One list of the elements of lists in lists.",
	"floor":            "The next whole number that is not above.",
	"format":           "The text with values in it: %s a string, %d a whole number, %05d with zeros before it, %q quoted, %v any.",
	"formatdate":       "A time stamp as text, by a form such as \"DD MMM YYYY hh:mm\".",
	"formatlist":       "format for each element of lists.",
	"indent":           "The text with so many spaces before each line but the first.",
	"index":            "The number of the element that has the value.",
	"issensitive":      "True if the value is sensitive.",
	"join":             "The elements of a list as one text, with the separator between.",
	"jsondecode":       "The value of a text in JSON.",
	"jsonencode":       "The value as JSON.",
	"keys":             "The keys of a map or object, in order.",
	"length":           "How many elements a list, set or map has, or characters a text.",
	"log":              "The logarithm of a number to a base.",
	"lookup":           "The element of a map by its key, or the default where it has none.",
	"lower":            "The text in small letters.",
	"matchkeys":        "Of a list, the elements whose partner in the second list is in the third.",
	"max":              "The largest of the numbers.",
	"md5":              "The MD5 digest of the text, in hex.",
	"merge":            "One map or object of several; of equal keys, the last counts.",
	"min":              "The smallest of the numbers.",
	"nonsensitive":     "The value, no longer sensitive: it is shown from here on.",
	"one":              "The only element of a list or set; null if it is empty.",
	"parseint":         "The whole number that a text is in a base.",
	"pow":              "A number to the power of another.",
	"range":            "The numbers from a start (0) up to below a limit, by a step (1).",
	"regex":            "What a regular expression finds first: its match, or its groups.",
	"regexall":         "All that a regular expression finds.",
	"replace":          "The text with a part replaced everywhere; a pattern in slashes is a regular expression.",
	"reverse":          "The list from its end to its beginning.",
	"sensitive":        "The value, sensitive: it is never shown.",
	"setintersection":  "What all of the sets have.",
	"setproduct":       "All combinations of one element of each.",
	"setsubtract":      "What the first set has and the second has not.",
	"setunion":         "What any of the sets has.",
	"sha1":             "The SHA-1 digest of the text, in hex.",
	"sha256":           "The SHA-256 digest of the text, in hex.",
	"sha512":           "The SHA-512 digest of the text, in hex.",
	"signum":           "-1, 0 or 1, as the number is below, at or above 0.",
	"slice":            "A part of a list: from a number, up to below another.",
	"sort":             "The strings in order.",
	"split":            "The parts of a text between separators.",
	"startswith":       "True if the text begins so.",
	"strcontains":      "True if the text has the other in it.",
	"strrev":           "The text from its end to its beginning.",
	"substr":           "A part of the text: from a number, so many characters; -1: all.",
	"sum":              "The sum of the numbers.",
	"templatefile":     "The text of a file with ${...} worked out from the given values.",
	"templatestring":   "The text with ${...} worked out from the given values.",
	"textdecodebase64": "The text that is written in an encoding and then in base64.",
	"textencodebase64": "The text in an encoding, in base64.",
	"timeadd":          "A time stamp and a duration later, as \"1h30m\".",
	"timecmp":          "-1, 0 or 1, as the first time stamp is before, at or after the second.",
	"title":            "The text with a capital at each word's beginning.",
	"tobool":           "The value as a bool.",
	"tolist":           "The value as a list.",
	"tomap":            "The value as a map.",
	"tonumber":         "The value as a number.",
	"toset":            "The value as a set: each element once, without order. for_each takes one of strings.",
	"tostring":         "The value as a string.",
	"transpose":        "A map of lists turned round: from each element to the keys that have it.",
	"trim":             "The text without such characters at both ends.",
	"trimprefix":       "The text without a beginning.",
	"trimspace":        "The text without blanks at both ends.",
	"trimsuffix":       "The text without an end.",
	"try":              "The first of the expressions that is no error.",
	"upper":            "The text in capitals.",
	"urldecode":        "The text that urlencode has written.",
	"urlencode":        "The text as it can stand in a URL's query.",
	"uuidv5":           "The UUID of a name in a namespace: the same each time.",
	"values":           "The values of a map or object, in the order of the keys.",
	"yamldecode":       "The value of a text in YAML.",
	"yamlencode":       "The value as YAML.",
	"zipmap":           "A map of a list of keys and one of values.",
}

// RuntimeAttributes are the attributes of a node or group (kind) that only the
// running cluster knows.
func RuntimeAttributes(kind string) []string { return runtimeAttributes[kind] }

// ValidName tells whether a label can be a name in an address.
func ValidName(name string) bool {
	return asciiName(name) && (plainName(name) || hclsyntax.ValidIdentifier(name))
}

// plainName tells of most names that they are identifiers, without HCL's scanner.
func plainName(name string) bool {
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (i == 0 || (c < '0' || c > '9') && c != '_' && c != '-') {
			return false
		}
	}
	return name != ""
}
