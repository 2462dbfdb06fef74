BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE diffsift_decision (
	study_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	kind VARCHAR(250) NOT NULL, 
	stage VARCHAR(250) NOT NULL, 
	level INTEGER, 
	depth INTEGER NOT NULL, 
	channels INTEGER NOT NULL, 
	stride INTEGER NOT NULL, 
	kept BOOLEAN NOT NULL, 
	reason TEXT NOT NULL, 
	backbone VARCHAR(250) NOT NULL, 
	PRIMARY KEY (study_id, position), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_elimination (
	study_id INTEGER NOT NULL, 
	selection JSON NOT NULL, 
	solves INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (study_id), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_lock (
	study VARCHAR(250) NOT NULL, 
	token VARCHAR(32) NOT NULL, 
	host VARCHAR(250) NOT NULL, 
	pid INTEGER NOT NULL, 
	process_started FLOAT NOT NULL, 
	since DATETIME NOT NULL, 
	PRIMARY KEY (study)
);
INSERT INTO "diffsift_lock" VALUES('planted','db6b6c10631e473c968cb15bcd6e2b89','host-a',4118,1795765020.92,'2026-11-27 07:37:01.410545');
CREATE TABLE diffsift_opening (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	row_names JSON NOT NULL, 
	opened DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_outcome (
	study_id INTEGER NOT NULL, 
	outcome JSON NOT NULL, 
	written DATETIME NOT NULL, 
	PRIMARY KEY (study_id), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_selection (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	selection_key VARCHAR(16) NOT NULL, 
	selection JSON NOT NULL, 
	score FLOAT, 
	fold_scores JSON, 
	channels INTEGER, 
	seconds FLOAT, 
	created DATETIME NOT NULL, 
	token VARCHAR(32), 
	host VARCHAR(250), 
	pid INTEGER, 
	process_started FLOAT, 
	PRIMARY KEY (id), 
	UNIQUE (study_id, selection_key), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
INSERT INTO "diffsift_selection" VALUES(1,1,'b2e6371c0deb95cd','[{"backbone": "main", "activation": "activation09", "timestep": 50, "weight": 1.0}]',0.25,'[0.25]',8,5.41477998922346159815e-04,'2026-11-27 07:37:01.035216',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(2,1,'74818fabd70327c3','[{"backbone": "main", "activation": "activation19", "timestep": 300, "weight": 1.0}]',2.66666666666666662965e-01,'[0.26666666666666666]',8,3.5274840010970365256e-03,'2026-11-27 07:37:01.104595',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(3,1,'dbd329091f6f41f0','[{"backbone": "main", "activation": "activation00", "timestep": 300, "weight": 1.0}]',2.16666666666666674068e-01,'[0.21666666666666667]',8,6.86794899957021698355e-03,'2026-11-27 07:37:01.127810',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(4,1,'cda2ab88387774a0','[{"backbone": "main", "activation": "activation12", "timestep": 300, "weight": 1.0}]',2.66666666666666662965e-01,'[0.26666666666666666]',8,3.55970998498378321528e-04,'2026-11-27 07:37:01.160495',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(5,1,'4935976c5dfd2191','[{"backbone": "main", "activation": "activation16", "timestep": 50, "weight": 1.0}]',2.16666666666666674068e-01,'[0.21666666666666667]',8,3.02662001558928750455e-04,'2026-11-27 07:37:01.194580',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(6,1,'a102ea589b9d31b4','[{"backbone": "main", "activation": "activation02", "timestep": 50, "weight": 1.0}]',0.3,'[0.3]',8,3.74618999558151699602e-04,'2026-11-27 07:37:01.237784',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(7,1,'c2d5fd6c13d991ac','[{"backbone": "main", "activation": "activation06", "timestep": 300, "weight": 1.0}]',2.33333333333333337034e-01,'[0.23333333333333334]',8,3.13447999360505491495e-04,'2026-11-27 07:37:01.274649',NULL,'host-a',4105,1795765011.63);
INSERT INTO "diffsift_selection" VALUES(8,1,'073b935d5fe59128','[{"backbone": "main", "activation": "activation00", "timestep": 50, "weight": 1.0}, {"backbone": "main", "activation": "activation00", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation01", "timestep": 50, "weight": 1.0}]',6.83333333333333348136e-01,'[0.5]',8,0.1,'2026-11-27 07:37:01.329919',NULL,NULL,NULL,NULL);
INSERT INTO "diffsift_selection" VALUES(9,1,'5eb9595910887797','[{"backbone": "main", "activation": "activation01", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation02", "timestep": 50, "weight": 1.0}]',NULL,NULL,NULL,NULL,'2026-11-27 07:37:01.399393','d43488a13059426ea21354a971391bb3','host-a',4118,1795765020.92);
INSERT INTO "diffsift_selection" VALUES(10,1,'69ae049d19dadfce','[{"backbone": "main", "activation": "activation02", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation03", "timestep": 50, "weight": 1.0}]',NULL,NULL,NULL,NULL,'2026-11-27 07:37:01.409987','d43488a13059426ea21354a971391bb3','host-a',4118,1795765020.92);
CREATE TABLE diffsift_study (
	id INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	identity JSON NOT NULL, 
	runtime JSON NOT NULL, 
	pool JSON NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "diffsift_study" VALUES(1,'planted','{}','{}','[]','2026-11-27 07:36:59.168888');
CREATE TABLE diffsift_version (
	schema INTEGER NOT NULL, 
	PRIMARY KEY (schema)
);
INSERT INTO "diffsift_version" VALUES(3);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'planted');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'uid','"14a5efd6f337"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(2,1,'slot0',18.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(3,2,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(4,2,'slot0',39.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(5,3,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(6,3,'slot0',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(7,4,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(8,4,'slot0',25.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(9,5,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(10,5,'slot0',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(11,6,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(12,6,'slot0',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(13,7,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(14,7,'slot0',13.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'diffsift','{"selection": [{"backbone": "main", "activation": "activation09", "timestep": 50, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(2,2,'diffsift','{"selection": [{"backbone": "main", "activation": "activation19", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(3,3,'diffsift','{"selection": [{"backbone": "main", "activation": "activation00", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(4,4,'diffsift','{"selection": [{"backbone": "main", "activation": "activation12", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(5,5,'diffsift','{"selection": [{"backbone": "main", "activation": "activation16", "timestep": 50, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(6,6,'diffsift','{"selection": [{"backbone": "main", "activation": "activation02", "timestep": 50, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(7,7,'diffsift','{"selection": [{"backbone": "main", "activation": "activation06", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.25,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,2.66666666666666662965e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,2.16666666666666674068e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,2.66666666666666662965e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,2.16666666666666674068e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,0.3,'FINITE');
INSERT INTO "trial_values" VALUES(7,7,0,2.33333333333333337034e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-27 07:37:01.033778','2026-11-27 07:37:01.054050');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-27 07:37:01.095946','2026-11-27 07:37:01.109346');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-27 07:37:01.127148','2026-11-27 07:37:01.135814');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-27 07:37:01.159672','2026-11-27 07:37:01.161759');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-27 07:37:01.193837','2026-11-27 07:37:01.195629');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-27 07:37:01.237000','2026-11-27 07:37:01.239233');
INSERT INTO "trials" VALUES(7,6,1,'COMPLETE','2026-11-27 07:37:01.273980','2026-11-27 07:37:01.275745');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE INDEX diffsift_selection_score ON diffsift_selection (study_id, score);
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
