// Package schemas holds the JSON Schemas (draft 2020-12) of what clusterplan
// prints with --json, a file a document or line; docs/json.md lists them. They
// say what is there, and let more be there: a minor version of a format only
// adds. Our own tests read them strictly (internal/jsonschematest).
package schemas

import "embed"

// Files are the schemas, NAME.schema.json, and common.schema.json, which they
// refer to.
//
//go:embed *.schema.json
var Files embed.FS
