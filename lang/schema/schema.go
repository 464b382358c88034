// Package schema turns spec's schemas, which are data, into cty types, and
// values of these types into JSON and spec's types and back.
package schema
