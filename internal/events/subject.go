package events

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
)

// ErrSite reports a name that no site or node may have. Permanent.
var ErrSite = errors.New("unacceptable name")

// A Site names one tree, its stream and its buckets.
type Site string

// ParseSite checks a site's name: 1 to 32 of [A-Za-z0-9_-], so that it can be
// a subject's token and a stream's name as it stands. Nodes are named by the
// same rule.
func ParseSite(s string) (Site, error) {
	if err := CheckName(s); err != nil {
		return "", err
	}
	return Site(s), nil
}

// CheckName says with [ErrSite] why s cannot name a site or a node.
func CheckName(s string) error {
	if s == "" || len(s) > MaxSiteBytes {
		return fmt.Errorf("%w %q: 1 to %d characters are allowed", ErrSite, clip(s), MaxSiteBytes)
	}
	for i := range len(s) {
		if !plain(s[i]) {
			return fmt.Errorf("%w %q: only letters, digits, _ and - are allowed", ErrSite, s)
		}
	}
	return nil
}

// FileSubjects is the wildcard over every path's subject.
func (s Site) FileSubjects() string { return "treecast." + string(s) + ".file.>" }

// LeaseSubject is where publishers fence each other.
func (s Site) LeaseSubject() string { return "treecast." + string(s) + ".lease" }

// HolderSubject is where the holder of the lease answers; it is not stored.
func (s Site) HolderSubject() string { return "treecast." + string(s) + ".holder" }

// SnapshotSubject is where nodes ask the publisher to lend them a consumer; it is
// not stored.
func (s Site) SnapshotSubject() string { return "treecast." + string(s) + ".snapshot" }

// WantSubject is where nodes ask the publisher to look after chunks; it is not
// stored.
func (s Site) WantSubject() string { return "treecast." + string(s) + ".want" }

// BarrierSubject is where the holder of the lease is asked whether all that is
// at the source is published; it is not stored.
func (s Site) BarrierSubject() string { return "treecast." + string(s) + ".barrier" }

// SourceSubject is where the holder of the lease answers how the source is; it is
// not stored.
func (s Site) SourceSubject() string { return "treecast." + string(s) + ".source" }

// NodeSubject is where a node answers how it is; it is not stored.
func (s Site) NodeSubject(node string) string { return "treecast." + string(s) + ".node." + node }

// IsFile reports whether subject is some path's subject on this site.
func (s Site) IsFile(subject string) bool {
	return strings.HasPrefix(subject, "treecast."+string(s)+".file.")
}

// Subject returns the subject of p: see the package's comment for the
// encoding. It is injective up to collisions of SHA-256.
func (s Site) Subject(p Path) string {
	var b strings.Builder
	b.Grow(len("treecast..file.") + len(s) + len(p.s) + 16)
	b.WriteString("treecast.")
	b.WriteString(string(s))
	b.WriteString(".file.")
	prefix := b.Len()
	if p.IsRoot() {
		b.WriteString(rootToken)
		return b.String()
	}
	rest := p.s
	if first, _, _ := strings.Cut(p.s, "/"); first == rootToken || first == longToken {
		b.WriteString("=5F")
		rest = rest[1:]
	}
	tokens := 4
	for i := range len(rest) {
		switch c := rest[i]; {
		case c == '/':
			b.WriteByte('.')
			tokens++
		case plain(c):
			b.WriteByte(c)
		default:
			b.WriteByte('=')
			b.WriteByte(hexDigits[c>>4])
			b.WriteByte(hexDigits[c&15])
		}
		if b.Len() > MaxSubjectBytes || tokens > MaxSubjectTokens {
			sum := sha256.Sum256([]byte(p.s))
			return b.String()[:prefix] + longToken + "." + base32.StdEncoding.EncodeToString(sum[:20])
		}
	}
	return b.String()
}

// PathOf is the inverse of Subject. It reports false for a subject that no
// path has, and for one that only has a path's hash.
func (s Site) PathOf(subject string) (Path, bool) {
	rest, ok := strings.CutPrefix(subject, "treecast."+string(s)+".file.")
	if !ok {
		return Path{}, false
	}
	if rest == rootToken {
		return Path{}, true
	}
	var b strings.Builder
	for i := 0; i < len(rest); i++ {
		switch c := rest[i]; {
		case c == '.':
			b.WriteByte('/')
		case c == '=' && i+2 < len(rest):
			high, low := strings.IndexByte(hexDigits, rest[i+1]), strings.IndexByte(hexDigits, rest[i+2])
			if high < 0 || low < 0 {
				return Path{}, false
			}
			b.WriteByte(byte(high<<4 | low))
			i += 2
		default:
			b.WriteByte(c)
		}
	}
	p, err := ParsePath(b.String())
	return p, err == nil && s.Subject(p) == subject
}

const (
	rootToken = "_root"
	longToken = "_long"
	hexDigits = "0123456789ABCDEF"
)

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
