"""From a hospital's archive to a site folder: DICOM exports and reports, identities removed before anything is kept."""
