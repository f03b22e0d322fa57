use crate::draft::Draft;
use argosy_spec::Manifest;
pub(crate) fn accepted(_draft: &mut Draft, _workflow: u64, _manifest: &Manifest) {}
