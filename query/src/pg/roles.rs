//! Who there is, as PostgreSQL's clients are told: whoever asks, and nobody else.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::{PgCatalogContextProvider, Role};

use crate::caller::Caller;

/// The caller of a session.
#[derive(Clone, Debug)]
pub(super) struct Roles(pub Arc<Caller>);

#[async_trait]
impl PgCatalogContextProvider for Roles {
    async fn roles(&self) -> Vec<String> {
        vec![self.0.name().to_owned()]
    }

    async fn role(&self, name: &str) -> Option<Role> {
        (name == self.0.name()).then(|| Role {
            name: name.to_owned(),
            is_superuser: false,
            can_login: true,
            can_create_db: false,
            can_create_role: false,
            can_create_user: false,
            can_replication: false,
            grants: Vec::new(),
            inherited_roles: Vec::new(),
        })
    }
}
