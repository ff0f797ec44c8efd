package events

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// ErrDigest reports content that does not hash to the entry's digest, or has
// not its size. Permanent for this body: the same bytes again cannot help.
var ErrDigest = errors.New("content digest mismatch")

// A Digest is the SHA-256 of a body's uncompressed bytes.
type Digest [sha256.Size]byte

const digestPrefix = "sha256:"

// Sum returns the digest of b.
func Sum(b []byte) Digest { return sha256.Sum256(b) }

// String returns the digest as the wire has it: "sha256:" and 64 hex digits.
func (d Digest) String() string {
	var room [len(digestPrefix) + 2*len(d)]byte
	copy(room[:], digestPrefix)
	hex.Encode(room[len(digestPrefix):], d[:])
	return string(room[:])
}

// ParseDigest is the inverse of [Digest.String] and accepts nothing else.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	digits, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(digits) != 2*len(d) || digits != strings.ToLower(digits) {
		return d, fmt.Errorf("%w: digest %q", ErrEntry, clip(s))
	}
	if _, err := hex.Decode(d[:], []byte(digits)); err != nil {
		return d, fmt.Errorf("%w: digest %q", ErrEntry, clip(s))
	}
	return d, nil
}
